# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# --kernel-socket: /dev/nbdN, whose driver holds the donor's socket itself.  Under fio verify the
# donor is killed and restarted, and the bridge is killed and taken over: no error and no wrong
# byte.  While there is no bridge the kernel goes on alone, and keeps others out.  A detach frees
# the region at once.  After a lapse and another writer, and after a lost epoch, the device fails
# for good, and so it does where the bridge that takes over is the first to see that.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio qemu-io

in_testbed --timeout 800 <<'END'
. tests/ownership.sh
port=$(free_port) way=$(free_port)
donor() { start_donor --listen "127.0.0.1:$port" --memory r=64M --lease 3 --keep "${keep:-600}"; }
direct() { # an emulator may be slow
	weft attach "weft://127.0.0.1:$port/r" --kernel-socket --device /dev/nbd0 \
		--dead-timeout 90 "$@"
}
kernel() { attachment "kernel_socket.$1"; }
is_connected() { [[ $(kernel state) = connected ]]; }
fill() { head -c 4096 /dev/zero | tr '\0' "$1"; }
put() {
	fill "$1" | timeout 100 dd of=/dev/nbd0 bs=4096 seek="$2" oflag=direct conv=notrunc \
		status=none
}
get() { timeout 100 dd if=/dev/nbd0 bs=4096 skip="$1" count=1 iflag=direct status=none; }
fio_start() {
	fio --name=v --filename=/dev/nbd0 --ioengine=libaio --direct=1 --size=8M --rw=randwrite \
		--bssplit=4k/60:64k/30:1m/10 --iodepth=8 --numjobs=2 --offset_increment=16M \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --rate=1m --group_reporting \
		--minimal >"$TMP/fio" 2>&1 &
	FIO=$!
	wait_for -t 60 grep -qs ' [1-9]' /sys/block/nbd0/inflight
}
fio_end() {
	wait "$FIO" || fail "fio: $(cat "$TMP/fio"; weft status; dmesg | tail -n 20)"
	! grep -i 'I/O error' <(dmesg) || fail "the kernel saw errors"
}
# It says that the attachment was lost, with its exit status too.
end_lost() {
	! weft detach --force r >"$TMP/out" 2>&1 || fail "detach says nothing of the loss"
	grep -q 'is detached, but' "$TMP/out" || fail "detach: $(cat "$TMP/out")"
}
modprobe nbd nbds_max=4 2>/dev/null || :
donor

echo "== it reads and writes, and says what it is"
direct >"$TMP/out" || fail "$(cat "$TMP/out")"
cat "$TMP/out"
grep -q "the kernel holds the donor's socket" "$TMP/out" || fail "$(cat "$TMP/out")"
[[ $(attachment transport) = tcp ]] || fail "over $(attachment transport)"
is_connected || fail "it is $(kernel state)"
[[ $(cat /sys/block/nbd0/queue/write_cache) = "write back" ]] || fail "it does not flush"
put K 5 || fail "it takes no write"
cmp <(get 5) <(fill K) || fail "it reads something else"
blkdiscard -o 20480 -l 4096 /dev/nbd0 || fail "it takes no discard"
# The data goes to the donor's socket, and not by the bridge.
[[ $(weft status r --json | jq '[.attachments[0].requests[]?] | add // 0') = 0 ]] ||
	fail "the bridge saw requests: $(weft status r --json)"
! other weft attach "weft://127.0.0.1:$port/r" --name s --socket "$TMP/o" --transport tcp \
	>"$TMP/out" 2>&1 || fail "two writers"

echo "== the donor is killed and restarted"
fio_start
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" || :
donor
fio_end
is_connected || fail "it is $(kernel state)"
(($(kernel sockets) >= 2)) || fail "the kernel got no new socket"

echo "== the bridge is killed; the kernel goes on, longer than a lease; another takes over"
fio_start
kill_bridge
put L 8191 || fail "no write without the bridge"
cmp <(get 8191) <(fill L) || fail "it reads something else"
sleep 7 # more than two leases
cmp <(get 8191) <(fill L) || fail "it reads something else"
! io "nbd://127.0.0.1:$port/r" -c 'write -P 0x41 0 4096' || fail "another came in"
direct >"$TMP/out" || fail "$(cat "$TMP/out")"
grep -q 'taken over' "$TMP/out" || fail "$(cat "$TMP/out")"
fio_end
is_connected || fail "it is $(kernel state)"

echo "== a detach frees the region at once"
weft detach r || fail "detach"
[[ ! -e /sys/block/nbd0/backend ]] || fail "the device is there still"
io "nbd://127.0.0.1:$port/r" -c 'read 0 4096' || fail "$(cat "$TMP/io")"

echo "== a dead bridge's device is detached"
direct >/dev/null || fail attach
kill_bridge
put M 1 || fail "no write without the bridge"
weft detach r || fail "detach"
[[ ! -e /sys/block/nbd0/backend ]] || fail "the device is there still"
io "nbd://127.0.0.1:$port/r" -c 'read -P 0x4d 4096 4096' || fail "$(cat "$TMP/io")"

echo "== cut off, the lease lapses, another writes: no more from here"
network_up
weft attach "weft://127.0.0.1:$way/r" --kernel-socket --device /dev/nbd0 --dead-timeout 120 \
	>/dev/null || fail attach
put N 1 || fail "no write"
network_cut
wait_for -t 60 nobody_has_it
writes 0x42 0 65536 "nbd://127.0.0.1:$port/r" || fail "$(cat "$TMP/io")"
(put O 2 2>/dev/null || :) &
late=$!
network_up
wait_for -t 60 is_stale
ended() { [[ $(kernel state) = ended ]]; }
wait_for -t 60 ended
wait $late || :
! get 1 >/dev/null 2>&1 || fail "it reads"
! put P 3 2>/dev/null || fail "it writes"
! weft reset r >"$TMP/out" 2>&1 || fail "it was reset"
grep -q 'attach anew' "$TMP/out" || fail "$(cat "$TMP/out")"
reads 0x42 0 65536 "nbd://127.0.0.1:$port/r" || fail "written over: $(cat "$TMP/io")"
end_lost
network_cut

echo "== the donor comes back with other contents"
stop_donor || fail "the donor's exit status: $?"
keep=0
donor
direct >/dev/null || fail attach
put Q 1 || fail "no write"
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" || :
donor
wait_for -t 60 ended
! get 1 >/dev/null 2>&1 || fail "it reads"
end_lost

echo "== while the bridge is dead, too: who takes over is stale from the beginning"
# The lost epoch is kept for its holder for a moment.
wait_for -t 60 direct >/dev/null 2>&1 || fail attach
put R 1 || fail "no write"
kill_bridge
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" || :
donor
attach_stale "weft://127.0.0.1:$port/r" --kernel-socket --device /dev/nbd0 --dead-timeout 90
ended || fail "it is $(kernel state)"
! get 1 >/dev/null 2>&1 || fail "it reads"
! put S 1 2>/dev/null || fail "it writes"
end_lost
reads 0 4096 4096 "nbd://127.0.0.1:$port/r" || fail "it was written to: $(cat "$TMP/io")"
stop_donor || fail "the donor's exit status: $?"
END
