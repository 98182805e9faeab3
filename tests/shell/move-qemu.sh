# SPDX-License-Identifier: MIT
# tier: long
# presets: dev asan
# timeout: 900
# processors: 2
# A QEMU machine whose RAM is a mapped region goes on computing while the region moves to another
# donor, and back: what it computes is right, and what the donor has in the end is its RAM.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool qemu-system-x86_64 socat busybox jq

boot=$("$WEFT_SRC/tests/testbed/image")
bytes=$((128 << 20))

# It fills a part of its memory with something new, copies that, and looks whether the copy is
# right, and so what it kept of the rounds before.
mkdir -p "$TMP/root/bin"
cp "$(command -v busybox)" "$TMP/root/bin/busybox"
cat >"$TMP/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /tmp
mount -t tmpfs tmp /tmp
exec >/dev/console 2>&1
n=0
while n=$((n + 1)); do
	head -c 2097152 /dev/urandom >/tmp/new
	sum=$(md5sum </tmp/new)
	[ "$(wc -c </tmp/new)" = 2097152 ] || echo "round $n: WRONG: it is not there"
	cat /tmp/new >/tmp/copy
	for past in /tmp/sum.*; do
		[ ! -e "$past" ] ||
			[ "$(md5sum <"/tmp/kept.${past##*.}")" = "$(cat "$past")" ] ||
			echo "round $n: WRONG: what was kept in $past"
	done
	[ "$(md5sum </tmp/copy)" = "$sum" ] || echo "round $n: WRONG"
	mv /tmp/copy "/tmp/kept.$((n % 3))"
	echo "$sum" >"/tmp/sum.$((n % 3))"
	echo "round $n: right"
done
INIT
chmod +x "$TMP/root/init"
(cd "$TMP/root" && find . | busybox cpio -o -H newc) >"$TMP/initrd" 2>/dev/null

start_donor --take 256M --listen 127.0.0.1:0
there=weft://$(sed -n 's/^listening on //p' "$DONOR_LOG")
start_donor --memory "ram=$bytes" --take 256M
here=weft://127.0.0.1:$PORT
weft attach "$here/ram" --mount "$TMP/ram" >"$TMP/attached" || fail "$(cat "$TMP/attached")"
cleanup_add "weft detach --force ram 2>/dev/null"
qemu-system-x86_64 -nodefaults -no-reboot -display none \
	-M pc,usb=off,vmport=off,memory-backend=ram -accel tcg -cpu max,-erms,-fsrm -smp 1 \
	-m "$((bytes >> 20))M" \
	-object "memory-backend-file,id=ram,size=$bytes,mem-path=$TMP/ram,share=on" \
	-kernel "$boot/kernel/vmlinux" -initrd "$TMP/initrd" \
	-append "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on" \
	-serial "file:$TMP/console" -monitor "unix:$TMP/monitor,server=on,wait=off" &
machine=$!
# What the kernel would keep for half a minute is written to the donor as fast as that goes.
while kill -0 "$machine" 2>/dev/null; do
	sync "$TMP/ram" || :
	sleep 0.1
done &
: >>"$TMP/console"
round() { sed -n 's/^round \([0-9]*\): right\r*$/\1/p' "$TMP/console" | tail -n 1; }
# goes_on N: does so many rounds more.
goes_on() {
	local now
	now=$(round)
	has_done() {
		(($(round) >= now + $1)) || {
			! gone "$machine" || fail "the machine ended: $(tail -n 20 "$TMP/console")"
			false
		}
	}
	wait_for -t 240 has_done "$1"
}
goes_on 3
for way in "$here $there" "$there $here"; do
	weft move --bandwidth 20M "${way% *}/ram" "${way#* }" ||
		fail "it does not move: $(cat "$DONOR_LOG")"
	goes_on 3
done
weft move --bandwidth 20M --json "$here/ram" "$there" >"$TMP/moved" || fail "it does not move"
goes_on 2
{
	echo stop
	# Below 1 MiB there are a screen's memory and the firmware's.
	echo "pmemsave 0x100000 $((bytes - (1 << 20))) \"$TMP/saved\""
	echo quit
} | socat -t 120 - "UNIX:$TMP/monitor" >"$TMP/said"
wait "$machine" || fail "QEMU ended with $?: $(cat "$TMP/said")"
! grep WRONG "$TMP/console" || fail "other memory than it wrote"
weft detach ram
weft pull "$there/ram" "$TMP/region" >/dev/null
cmp -i $((1 << 20)):0 "$TMP/region" "$TMP/saved" || fail "the region is not the machine's memory"
jq -se 'last | .copied_bytes > .size_bytes' "$TMP/moved" >/dev/null ||
	fail "nothing was written while it moved: $(tail -n 1 "$TMP/moved")"
echo "$(round) rounds, all right; $(tail -n 1 "$TMP/moved")"
