# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# A region as /dev/ublkbN, in the testbed, over TCP and over soft-RoCE: fio verifies direct,
# buffered and mapped files; ext4; discards; the bridge, and the donor, killed under fio; what is in
# use is not detached; what a dead bridge left is cleared; no driver, no rights.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio blkdiscard mkfs.ext4

in_testbed --timeout 800 --memory 2G <<'END'
set -o pipefail
seconds=$SECONDS
step() { echo "== $* ($((SECONDS - seconds)) s)"; }
port=$(free_port)
donor() { start_donor --listen "$RDMA_IP:$port" --allow-insecure --memory r=96M --memory q=8M --lease 20; }
donor
uri=weft://$RDMA_IP:$port
limit() { cat "/sys/block/ublkb0/queue/$1"; }
kill_bridge() { # the only one
	local pid
	pid=$(pgrep -x weft-attach)
	kill -KILL "$pid"
	wait_for -t 60 gone "$pid"
}

# verify NAME ARGUMENT…: every size from 4 KiB to 1 MiB, four jobs, each with its own quarter.
verify() {
	fio --name="$1" --filename=/dev/ublkb0 --size=3M --offset_increment=24M --rw=randwrite \
		--bssplit=4k/60:64k/30:1m/10 \
		--numjobs=4 --verify=crc32c --do_verify=1 --group_reporting \
		--minimal "${@:2}" >"$TMP/fio" 2>&1 ||
		fail "fio $1: $(cat "$TMP/fio")"
}
verify_all() {
	verify direct --ioengine=libaio --direct=1 --iodepth=16
	verify buffered --ioengine=psync --fsync=64
}

# under_fio COMMAND…: while fio writes; it notices nothing.
under_fio() {
	local before fio
	before=$(awk '{print $5}' /sys/block/ublkb0/stat)
	verify "$1" --ioengine=libaio --direct=1 --iodepth=16 --size=12M &
	fio=$!
	more() { (($(awk '{print $5}' /sys/block/ublkb0/stat) > before + 50)); }
	wait_for -t 60 more
	"$@"
	wait "$fio" || fail "$*, under fio"
}
donor_again() {
	kill -KILL "$DONOR_PID"
	wait "$DONOR_PID" || :
	donor
}
# bridge_again OPTION…: it is killed, and another takes its place.
bridge_again() {
	kill_bridge
	weft attach "$uri/r" "$@" >"$TMP/out" || fail "attach again: $(cat "$TMP/out")"
	cat "$TMP/out"
	grep -q 'taken over from a bridge that died' "$TMP/out" || fail "$(cat "$TMP/out")"
	grep -q 'device /dev/ublkb0 (ublk, as before)' "$TMP/out" || fail "$(cat "$TMP/out")"
}

step "auto takes ublk, and says so"
weft attach "$uri/r" --device --transport tcp --lanes 2 | tee "$TMP/out"
grep -q 'device /dev/ublkb0 (ublk, auto: ' "$TMP/out" || fail "$(cat "$TMP/out")"
weft status >"$TMP/out"
grep -q 'device /dev/ublkb0 (ublk, auto: ' "$TMP/out" || fail "not in the status: $(cat "$TMP/out")"
[[ $(blockdev --getsize64 /dev/ublkb0) == $((96 << 20)) ]] || fail "the size"
[[ $(limit write_cache) == "write back" && $(limit fua) == 1 ]] ||
	fail "cache $(limit write_cache), FUA $(limit fua)"
[[ $(limit logical_block_size) == 512 && $(limit max_sectors_kb) == 1024 ]] ||
	fail "block size, largest request"
[[ $(limit discard_max_bytes) -gt 0 && $(limit write_zeroes_max_bytes) -gt 0 ]] || fail "no discard"
[[ $(ls -d /sys/block/ublkb0/mq/* | wc -l) == 2 ]] || fail "a queue for each lane"

step "an idle device is not waiting for I/O"
iowait() { awk '$1 == "cpu" {print $6}' /proc/stat; }
nothing_in_flight() { [[ $(</sys/block/ublkb0/inflight) =~ ^\ *0\ +0$ ]]; }
wait_for nothing_in_flight
before=$(iowait)
sleep 3 # the time that is measured
(($(iowait) - before < 60)) || fail "$(($(iowait) - before)) ticks of iowait in 3 s"

step "fio over TCP"
verify_all

step "ext4 is made, filled, checked and mounted again"
mkdir "$TMP/mnt"
mkfs.ext4 -q -F /dev/ublkb0
mount -t ext4 /dev/ublkb0 "$TMP/mnt"
random_file "$TMP/data" $((24 << 20))
cp "$TMP/data" "$TMP/mnt/data"
# Mapped memory in files: on a block device fio's mmap engine removes what it is to verify.
fio --name=mapped --directory="$TMP/mnt" --size=4M --rw=randwrite --bssplit=4k/60:64k/30:1m/10 \
	--numjobs=4 --ioengine=mmap \
	--verify=crc32c --do_verify=1 --end_fsync=1 --group_reporting --minimal >"$TMP/fio" 2>&1 ||
		fail "fio mapped: $(cat "$TMP/fio")"
rm "$TMP"/mnt/mapped.*
! weft detach r >"$TMP/out" 2>&1 || fail "detached while it is mounted"
grep -q "is mounted on $TMP/mnt" "$TMP/out" || fail "$(cat "$TMP/out")"
umount "$TMP/mnt"
fsck.ext4 -fn /dev/ublkb0 >"$TMP/out" 2>&1 || fail "fsck: $(cat "$TMP/out")"
mount -t ext4 /dev/ublkb0 "$TMP/mnt"
cmp "$TMP/data" "$TMP/mnt/data" || fail "other bytes in the file"
umount "$TMP/mnt"
rm "$TMP/data"

step "discards"
blkdiscard -f -o 4M -l 4M /dev/ublkb0 || fail "blkdiscard"
dd if=/dev/urandom of=/dev/ublkb0 bs=1M seek=4 count=8 oflag=direct status=none
blkdiscard -f -z -o 5M -l 4M /dev/ublkb0 || fail "blkdiscard -f -z"
dd if=/dev/ublkb0 bs=1M skip=5 count=4 iflag=direct status=none | cmp -n $((4 << 20)) - /dev/zero ||
	fail "no zeros"
! dd if=/dev/ublkb0 bs=1M skip=4 count=1 iflag=direct status=none |
	cmp -s -n $((1 << 20)) - /dev/zero || fail "zeros where there were none"

step "two devices, and what is read-only is"
weft attach "$uri/q" --device-kind ublk --read-only | tee "$TMP/out"
grep -q 'device /dev/ublkb1 (ublk, as told)' "$TMP/out" || fail "$(cat "$TMP/out")"
[[ $(blockdev --getro /dev/ublkb1) == 1 ]] || fail "a reader that may write"
! dd if=/dev/zero of=/dev/ublkb1 bs=4k count=1 oflag=direct status=none 2>/dev/null ||
	fail "a reader has written"
dd if=/dev/ublkb1 of=/dev/null bs=1M iflag=direct status=none || fail "a reader cannot read"
weft detach /dev/ublkb1
[[ ! -e /dev/ublkb1 && ! -e /dev/ublkc1 && -e /dev/ublkb0 ]] ||
	fail "detached the wrong one: $(ls /dev/ublk*)"

step "a bridge killed under fio, over TCP; the donor too"
under_fio bridge_again --device --transport tcp --lanes 1

under_fio donor_again
step "what is in use is not detached, what is written is written out"
exec 5<>/dev/ublkb0
! weft detach r >"$TMP/out" 2>&1 || fail "detached while it is open"
grep -q 'has it open' "$TMP/out" || fail "$(cat "$TMP/out")"
exec 5>&-
dd if=/dev/urandom of="$TMP/data" bs=1M count=8 status=none
dd if="$TMP/data" of=/dev/ublkb0 bs=1M conv=notrunc status=none
weft detach r
[[ ! -e /dev/ublkb0 && ! -e /dev/ublkc0 ]] || fail "a device is left: $(ls /dev/ublk*)"

step "the same over RDMA"
weft attach "$uri/r" --device-kind ublk --transport rdma --lanes 2 | tee "$TMP/out"
cmp -n $((8 << 20)) "$TMP/data" /dev/ublkb0 || fail "what was written before the detach"
verify_all
under_fio bridge_again --device --transport rdma --lanes 2
under_fio donor_again

step "over TCP what was over RDMA"
under_fio bridge_again --device --transport tcp --lanes 2

step "nobody comes back: requests wait, and detach ends them"
kill_bridge
dd if=/dev/ublkb0 of=/dev/null bs=4k count=1 iflag=direct status=none 2>"$TMP/dd" &
dd=$!
waits() { grep -q '^State:.*D' "/proc/$dd/status"; }
wait_for waits
! weft detach r >"$TMP/out" 2>&1 || fail "what a dead bridge left was cleared while it is in use"
grep -q "pid $dd (dd) has it open" "$TMP/out" || fail "$(cat "$TMP/out")"
weft detach --force r
! wait "$dd" || fail "a request without an answer succeeded"
grep -q 'Input/output error' "$TMP/dd" || fail "$(cat "$TMP/dd")"
[[ ! -e /dev/ublkb0 ]] || fail "a device is left"
weft attach "$uri/r" --device-kind ublk --lanes 1 >"$TMP/out" ||
	fail "attach again: $(cat "$TMP/out")"
kill_bridge
weft detach r
[[ ! -e /dev/ublkb0 ]] || fail "an unused device is left"

step "nobody comes back, nor detaches: the requests fail after their time, and another bridge makes another device"
no_guard() { ! pgrep -x weft-guard >/dev/null; }
wait_for no_guard
weft attach "$uri/r" --device --transport tcp --timeout 4 --dead-timeout 3 >"$TMP/out" ||
	fail "attach: $(cat "$TMP/out")"
dd if=/dev/urandom of="$TMP/data" bs=1M count=4 status=none
dd if="$TMP/data" of=/dev/ublkb0 bs=1M oflag=direct status=none
kill_bridge
from=$SECONDS
! timeout 100 dd if=/dev/ublkb0 of=/dev/null bs=4k count=1 iflag=direct status=none 2>"$TMP/dd" ||
	fail "a read without a bridge"
grep -q 'Input/output error' "$TMP/dd" || fail "$(cat "$TMP/dd")"
((SECONDS - from >= 5)) || fail "after $((SECONDS - from)) s already"
wait_for no_guard
grep "the bridge of 'r' died, and no other took over within 9 s: /dev/ublkb0 is ended" \
	"$WEFT_RUN_DIR/attach-r.log" || fail "not told"
[[ ! -e /dev/ublkb0 ]] || fail "a device is left"
weft attach "$uri/r" --device --transport tcp >"$TMP/out" || fail "attach: $(cat "$TMP/out")"
cmp -n $((4 << 20)) "$TMP/data" /dev/ublkb0 || fail "other bytes"
pgrep -x weft-guard >/dev/null || fail "no guard"
weft detach r
no_guard || fail "a guard of nothing"

step "a take-over that fails leaves the device a guard"
weft attach "$uri/r" --device --transport tcp --timeout 4 --dead-timeout 3 >"$TMP/out" ||
	fail "attach: $(cat "$TMP/out")"
kill_bridge
kill -STOP "$DONOR_PID"
! weft attach "$uri/r" --device --transport tcp --timeout 4 --dead-timeout 3 >"$TMP/out" 2>&1 ||
	fail "attached without a donor"
cat "$TMP/out"
[[ -e /dev/ublkb0 ]] || fail "the failure ended the device"
! timeout 100 dd if=/dev/ublkb0 of=/dev/null bs=4k count=1 iflag=direct status=none 2>"$TMP/dd" ||
	fail "a read without a bridge"
grep -q 'Input/output error' "$TMP/dd" || fail "$(cat "$TMP/dd")"
wait_for no_guard
[[ ! -e /dev/ublkb0 ]] || fail "a device is left"
kill -CONT "$DONOR_PID"

step "a donor that does not answer: a forced detach fails what waits"
weft attach "$uri/r" --device --transport tcp --dead-timeout 0 --timeout 600 >"$TMP/out" ||
	fail "attach: $(cat "$TMP/out")"
kill -STOP "$DONOR_PID"
dd if=/dev/zero of=/dev/ublkb0 bs=4k count=1 oflag=direct status=none 2>"$TMP/dd" &
dd=$!
wait_for waits
! timeout 120 weft detach --force r >"$TMP/out" 2>&1 || fail "a clean end without the donor"
cat "$TMP/out"
! wait "$dd" || fail "a write without an answer succeeded"
grep -q 'Input/output error' "$TMP/dd" || fail "$(cat "$TMP/dd")"
[[ ! -e /dev/ublkb0 ]] || fail "a device is left"
kill -CONT "$DONOR_PID"

step "no rights, no driver"
! setpriv --reuid 65534 \
	--clear-groups env WEFT_RUN_DIR="$(setpriv --reuid 65534 mktemp -d /tmp/run.XXXXXX)" \
	weft attach "$uri/q" --device-kind ublk --transport tcp >"$TMP/out" 2>&1 ||
		fail "anybody made a device"
grep -q ublk "$TMP/out" || fail "$(cat "$TMP/out")"
rmmod ublk_drv
! weft attach "$uri/q" --device-kind ublk >"$TMP/out" 2>&1 || fail "a device without a driver"
grep -q 'modprobe ublk_drv' "$TMP/out" || fail "$(cat "$TMP/out")"
weft attach "$uri/q" --device | tee "$TMP/out"
grep -q 'device /dev/nbd[0-9]* (nbd, auto: .*modprobe ublk_drv' "$TMP/out" ||
	fail "$(cat "$TMP/out")"
no_guard || fail "a guard of an nbd device"
weft detach q
stop_donor || fail "the donor's exit status: $?"
END
