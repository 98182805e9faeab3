# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1800
# presets: dev asan only
# processors: 2
# A device with a write-back cache in a file, over nbd.ko and ublk, TCP and RDMA, under fio verify:
# the bridge is killed again and again ($WEFT_KILLS times in each), the next one goes on, and no
# write that was answered is lost; at the end the donor has it all.  Under tsan, in emulation, a
# bridge comes back later than the kernel waits for it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio nbdcopy

in_testbed --timeout 1700 -- "${WEFT_KILLS:-25}" <<'END2'
kills=$1 port=$(free_port)
start_donor --listen "$RDMA_IP:$port" --allow-insecure --memory r=64M --lease 20
bridge() { pgrep -x weft-attach; }
no_bridge() { ! bridge >/dev/null; }
try() { # KIND TRANSPORT
	attach() {
		weft attach "weft://$RDMA_IP:$port/r" --device --device-kind "$1" --transport "$2" \
			--lanes 2 --timeout 90 --dead-timeout 90 \
			--cache 32M --cache-file "$TMP/cache" --push-interval 3 >"$TMP/out" ||
				fail "attach: $(cat "$TMP/out")"
	}
	attach "$@"
	device=$(sed -n 's/^  device \([^ ]*\).*/\1/p' "$TMP/out")
	echo "== $*: $device"
	nr_requests() { awk '{print $1 + $5}' "/sys/block/${device#/dev/}/stat"; }
	fio --name=v --filename="$device" --ioengine=libaio --direct=1 --size=32M --rw=randwrite \
		--bssplit=4k/60:64k/30:1m/10 \
		--iodepth=8 --numjobs=2 --offset_increment=32M --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 --do_verify=1 --time_based=0 \
		--loops=1000 --rate=6m --group_reporting --minimal >"$TMP/fio" 2>&1 &
	fio=$!
	resumed=0
	for ((n = 0; n < kills; n++)); do
		sleep "0.$((RANDOM % 9))" # a moment that nothing here chooses
		kill -KILL "$(bridge)"
		wait_for no_bridge
		attach "$@"
		grep -q 'had not written back' "$TMP/out" && resumed=$((resumed + 1))
		kill -0 "$fio" || fail "fio after $n kills: $(cat "$TMP/fio"; dmesg | tail -n 20)"
	done
	before=$(nr_requests)
	went_on() { (($(nr_requests) >= before + 200)) || gone "$fio"; }
	wait_for -t 60 went_on
	kill -INT "$fio"
	wait "$fio" || :
	! grep -qi 'verify\|error' "$TMP/fio" || fail "fio: $(cat "$TMP/fio")"
	# Once more, with all of it written.
	fio --name=w --filename="$device" --ioengine=libaio --direct=1 --size=24M --rw=randwrite \
		--bs=64k --iodepth=8 --verify=crc32c \
		--verify_state_save=0 --do_verify=0 --minimal >"$TMP/fio" 2>&1 ||
			fail "fio: $(cat "$TMP/fio")"
	kill -KILL "$(bridge)"
	wait_for no_bridge
	attach "$@"
	fio --name=w --filename="$device" --ioengine=libaio --direct=1 --size=24M --rw=randread \
		--bs=64k --iodepth=8 --verify=crc32c \
		--verify_state_save=0 --verify_fatal=1 --minimal >"$TMP/fio" 2>&1 ||
			fail "what was written is not read: $(cat "$TMP/fio")"
	((kills < 5 || resumed > 0)) || fail "no bridge left anything: this shows nothing"
	cksum <"$device" >"$TMP/device.sum"
	weft detach r || fail "detach"
	nbdcopy "nbd://$RDMA_IP:$port/r" - | cksum >"$TMP/donor.sum"
	cmp "$TMP/device.sum" "$TMP/donor.sum" || fail "the donor has something else"
	! grep -i 'I/O error' <(dmesg) || fail "the kernel saw errors"
	echo "   $((kills + 1)) kills, $resumed of them with something left to write back"
}
for transport in tcp rdma; do
	for kind in nbd ublk; do
		try "$kind" "$transport"
	done
done
stop_donor || fail "the donor's exit status: $?"
END2
[[ $(grep -c '^   .* kills, ' "$TMP/output") == 4 ]] || fail "$(cat "$TMP/output")"
