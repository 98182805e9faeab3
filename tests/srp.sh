# SPDX-License-Identifier: MIT
# What tests of SRP share: a stock initiator in the testbed.  For shell tests, behind lib.sh.
# shellcheck disable=SC2034

# srp_modules: the initiator's, in the testbed.
srp_modules() {
	modprobe sd_mod
	modprobe sg
	modprobe ib_srp "$@"
	SRP_HOST=$(compgen -G "/sys/class/infiniband_srp/srp-*" | head -n 1)
	[[ $SRP_HOST ]] || fail "ib_srp has no RDMA device"
}

# srp_line REGION: what add_target takes, as the donor has printed it.
srp_line() {
	sed -n "s/^region '$1' over SRP:  echo \([^ ]*\) .*/\1/p" "$DONOR_LOG"
}

scsi_hosts() { ls /sys/class/scsi_host; }
has_disk() { compgen -G "/sys/class/scsi_host/$SCSI_HOST/device/target*/*/block/sd*" >/dev/null; }

# srp_login LINE: sets SCSI_HOST, DISK, SG, SDEV and RPORT (where its time-outs are).
srp_login() {
	local before
	before=$(scsi_hosts)
	echo "$1" 2>/dev/null >"$SRP_HOST/add_target" || return 1
	SCSI_HOST=$(comm -13 <(sort <<<"$before") <(scsi_hosts | sort) | tail -n 1)
	wait_for -t 60 has_disk
	local device
	device=$(compgen -G "/sys/class/scsi_host/$SCSI_HOST/device/target*/*/block/sd*")
	DISK=/dev/${device##*/}
	SDEV=${device%/block/*}
	SG=/dev/$(basename "${device%/block/*}"/scsi_generic/sg*)
	RPORT=$(compgen -G "/sys/class/srp_remote_ports/port-${SCSI_HOST#host}:*")
	wait_for test -b "$DISK"
}

# srp_login_again LINE: to where somebody was logged in just now; ib_srp knows that for a while yet.
srp_login_again() { wait_for -t 30 srp_login "$1"; }

no_disk() { [[ ! -e $DISK ]]; }
srp_logout() {
	echo 1 >"$RPORT/delete"
	wait_for -t 30 no_disk
}

# srp_fio ARGUMENT…: fio on $DISK, which verifies.
srp_fio() {
	timeout 200 fio --name=v --filename="$DISK" --direct=1 --ioengine=libaio --iodepth=32 \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --group_reporting --minimal "$@" \
		>"$TMP/fio" 2>&1 || fail "fio $*: $(tail -n 20 "$TMP/fio")"
}

# srp_again PARAMETER…: the initiator's module, with these, after it was removed.
srp_again() {
	modprobe -r ib_srp || fail "ib_srp does not go: $(lsmod | grep '^ib_srp')"
	srp_modules "$@"
}
# srp_host ATTRIBUTE: of the login.
srp_host() { cat "/sys/class/scsi_host/$SCSI_HOST/$1"; }

# donor_uses: what the donor has now, threads and descriptors, which donor_as_before waits for.
donor_uses() {
	DONOR_THREADS=$(entries "/proc/$DONOR_PID/task")
	DONOR_FILES=$(entries "/proc/$DONOR_PID/fd")
	echo "the donor has $DONOR_THREADS threads, $DONOR_FILES descriptors"
}
entries() { find "$1" -mindepth 1 -maxdepth 1 | wc -l; }
donor_has_no_more() {
	(($(entries "/proc/$DONOR_PID/task") <= DONOR_THREADS &&
		$(entries "/proc/$DONOR_PID/fd") <= DONOR_FILES))
}
donor_as_before() {
	kill -0 "$DONOR_PID" || fail "the donor is gone: $(tail -n 40 "$DONOR_LOG")"
	(wait_for -t 30 donor_has_no_more) || fail "the donor keeps: $(
		cat "/proc/$DONOR_PID/task"/*/comm | sort | uniq -c
		ls -l "/proc/$DONOR_PID/fd"
	)"
}

# disk_io VERB ARGUMENT…: tests/support/disk-io.py with $DISK; all bytes are right.
disk_io() {
	timeout 300 python3 tests/support/disk-io.py "$1" "$DISK" "${@:2}" >"$TMP/io" 2>&1 ||
		fail "$*: $? $(cat "$TMP/io"; dmesg | tail -n 5)"
}
# disk_load NOTES ARGUMENT…: starts a load of writes; sets LOAD once there was one.
disk_load() {
	rm -f "$1".*
	python3 tests/support/disk-io.py write "$DISK" "$@" >"$1.said" 2>&1 &
	LOAD=$!
	wait_for -t 60 test -e "$1.began"
}
# disk_load_ends NOTES STATUS: after it is told to, or by itself; its exit status.
disk_load_ends() {
	local status=0
	wait_for -t 120 gone "$LOAD"
	wait "$LOAD" || status=$?
	[[ $status = "$2" ]] || fail "a load's exit status $status: $(cat "$1.said"; dmesg | tail)"
	cat "$1.said"
}
