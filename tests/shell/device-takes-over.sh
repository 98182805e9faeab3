# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# /dev/nbdN under fio verify: a bridge that is killed is taken over, a donor is killed and
# restarted, a donor is stopped for longer than the kernel waits. No error and no wrong byte.
# Without anybody to take over there is EIO, and a new bridge revives the device.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio

in_testbed --timeout 800 <<'END'
port=$(free_port)
donor() { start_donor --listen "127.0.0.1:$port" --allow-insecure --memory r=64M --lease 20; }
attach() \
	{ weft attach "weft://127.0.0.1:$port/r" --device-kind nbd "$@" --transport tcp --lanes 2 || fail "attach $*"; }
bridge() { pgrep -x weft-attach; }
no_bridge() { ! bridge >/dev/null; }
fio_start() {
	fio --name=v --filename=/dev/nbd0 --ioengine=libaio --direct=1 --size=16M --rw=randwrite \
		--bssplit=4k/60:64k/30:1m/10 \
		--iodepth=8 --numjobs=4 --offset_increment=16M --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --time_based=0 \
		--loops=$1 --rate=4m --group_reporting --minimal >"$TMP/fio" 2>&1 &
	FIO=$!
	wait_for -t 60 grep -qs ' [1-9]' /sys/block/nbd0/inflight
}
fio_end() {
	wait "$FIO" || fail "fio: $(cat "$TMP/fio"; weft status; dmesg | tail -n 20)"
	! grep -i 'I/O error' <(dmesg) || fail "the kernel saw errors"
}
patient=(--timeout 90 --dead-timeout 90) # an emulator may be slow
donor
attach "${patient[@]}"

echo "== the bridge is killed, and another takes over"
fio_start 2
kill -KILL "$(bridge)"
wait_for no_bridge
attach "${patient[@]}" | tee "$TMP/out"
grep -q 'taken over' "$TMP/out" || fail "$(cat "$TMP/out")"
grep -q 'device /dev/nbd0' "$TMP/out" || fail "$(cat "$TMP/out")"
fio_end

echo "== the donor is killed and restarted"
fio_start 2
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" || :
donor
fio_end

echo "== the donor is stopped for longer than the kernel waits"
fio_start 2
kill -STOP "$DONOR_PID"
said() { dmesg | grep -q 'Connection timed out'; }
wait_for -t 30 said
kill -CONT "$DONOR_PID"
fio_end
weft status

echo "== nobody takes over: EIO, then a new bridge revives it"
kill -KILL "$(bridge)"
wait_for no_bridge
attach --timeout 5 --dead-timeout 5
kill -KILL "$(bridge)"
wait_for no_bridge
! timeout 120 dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct 2>"$TMP/dd" ||
	fail "read without a bridge"
grep -q 'Input/output error' "$TMP/dd" || fail "$(cat "$TMP/dd")"
! weft attach "weft://127.0.0.1:$port/r" --socket "$TMP/s" >"$TMP/out" 2>&1 ||
	fail "the device was forgotten"
grep -q 'left /dev/nbd0.*--device' "$TMP/out" || fail "$(cat "$TMP/out")"
attach --device /dev/nbd0 "${patient[@]}"
works() { dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct; }
wait_for works

echo "== a dead bridge's device is cleared, unless somebody uses it"
kill -KILL "$(bridge)"
wait_for no_bridge
sleep 1000 <>/dev/nbd0 &
holder=$!
held() { [[ $(readlink "/proc/$holder/fd/0") = /dev/nbd0 ]]; }
wait_for held
! weft detach r >"$TMP/out" 2>&1 || fail "detached what is in use"
grep -q "pid $holder (sleep) has it open" "$TMP/out" || fail "$(cat "$TMP/out")"
kill "$holder"
wait "$holder" || :
weft detach /dev/nbd0
[[ ! -e /sys/block/nbd0/backend ]] || fail "the device is there still"
stop_donor || fail "the donor's exit status: $?"
END
