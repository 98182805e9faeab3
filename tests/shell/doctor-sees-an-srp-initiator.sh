# SPDX-License-Identifier: MIT
# What a borrower needs that has regions as disks by ib_srp: the module, its RDMA device, settings
# with which a disk is back soon after its donor.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

fact() { # PATH CONTENT
	mkdir -p "$TMP/root/${1%/*}"
	echo "$2" >"$TMP/root/$1"
}
doctor() {
	weft doctor --sysroot "$TMP/root" >"$TMP/out" ||
		fail "exit status $?: $(cat "$TMP/out")"
}
expect() { # PATTERN
	grep -qE "$1" "$TMP/out" || fail "no '$1' in: $(cat "$TMP/out")"
}
settings() { # RECONNECT_DELAY FAST_IO_FAIL_TMO
	fact sys/module/ib_srp/parameters/reconnect_delay "$1"
	fact sys/module/ib_srp/parameters/fast_io_fail_tmo "$2"
	fact sys/module/ib_srp/parameters/dev_loss_tmo 600
	doctor
}
best='reconnect_delay=1 fast_io_fail_tmo=15 dev_loss_tmo=600'
fact proc/sys/kernel/osrelease 6.12.1-amd64
fact proc/meminfo 'MemAvailable: 1048576 kB'

echo "no module, one that could be loaded, one that is"
doctor
expect '^missing +SRP initiator +kernel 6.12.1-amd64 has no module ib_srp'
expect '^n/a +SRP settings '
fact lib/modules/6.12.1-amd64/modules.dep 'kernel/drivers/infiniband/ulp/srp/ib_srp.ko:'
doctor
expect '^warn +SRP initiator +ib_srp is not loaded'
expect "fix \\(as root\\): modprobe ib_srp $best\$"
expect '^n/a +SRP settings '
settings 1 15
expect '^missing +SRP initiator +ib_srp is loaded, and there is no RDMA device'
fact sys/class/infiniband_srp/srp-mlx5_0-1/ibdev mlx5_0
doctor
expect '^ok +SRP initiator +disks of donors by srp-mlx5_0-1'
expect '^ok +SRP settings +a disk is back 1 s after its donor; .* errors after 15 s$'

echo "settings that a donor which comes back does not like"
settings 10 15
expect '^warn +SRP settings +a disk is back up to 10 s after'
expect 'fix \(as root\): echo 15 >/sys/module/ib_srp/parameters/fast_io_fail_tmo; echo 1 >'
expect "reboot: echo options ib_srp $best > /etc/modprobe.d/weft-ib_srp.conf\$"
settings off 15
expect '^warn +SRP settings +reconnect_delay is off'
settings 1 off
expect '^warn +SRP settings +fast_io_fail_tmo is off'
settings 10 5
expect '^warn +SRP settings +a disk has errors after 5 s .* before it is tried again after 10 s'
