# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# presets: dev asan
# processors: 2
# A device of ublk and of nbd.ko whose bridge is killed, while a page in front of it is dirty; the
# lease runs out, a stock client writes what the device has read, and what it has not written, and
# flushes. The next bridge of the name is stale: no dirty page overwrites what was flushed, then or
# after a reset, which waits until nobody has the device open.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool qemu-io

in_testbed --timeout 500 <<'END'
. tests/ownership.sh
start_donor --memory r=16M --lease 3
donor=nbd://127.0.0.1:$PORT/r
fill() { head -c 4096 /dev/zero | tr '\0' "$1"; }
direct() \
	{ timeout 150 dd if="$device" bs=4096 skip="$1" count=1 iflag=direct status=none 2>"$TMP/err"; }
for kind in ublk nbd; do
	echo "== $kind"
	attach=(--device --device-kind "$kind" --transport tcp --lanes 2 --dead-timeout 120)
	writes 0x41 0 65536 "$donor" || fail "$(cat "$TMP/io")"
	weft attach "$URI" "${attach[@]}" >"$TMP/out" || fail "attach: $(cat "$TMP/out")"
	device=$(sed -n 's/^  device \([^ ]*\).*/\1/p' "$TMP/out")
	# Open all the time: else the kernel writes back when the last one closes it.
	sleep 1000 <>"$device" &
	holder=$!
	cmp -n 4096 "$device" <(fill A) || fail "it reads something else"
	fill D | dd of="$device" bs=4096 seek=2 conv=notrunc status=none || fail "dd"
	kill_bridge
	wait_for -t 60 nobody_has_it
	writes 0x42 0 65536 "$donor" || fail "$(cat "$TMP/io")"
	attach_stale "$URI" "${attach[@]}"
	! direct 0 >/dev/null || fail "it shows something"
	sync "$device" 2>"$TMP/err" || : # the dirty page, to an I/O error
	! fill E | dd of="$device" bs=4096 seek=3 conv=notrunc,fsync status=none 2>"$TMP/err" ||
		fail "it takes a write"
	reads 0x42 0 65536 "$donor" || fail "written over: $(cat "$TMP/io")"
	# A page that became dirty behind a stale device does not reach what a reset finds.
	fill F | dd of="$device" bs=4096 seek=4 conv=notrunc status=none || :
	! weft reset --discard r >"$TMP/out" 2>&1 || fail "it was reset while it is open"
	grep -qE "$holder|sleep|$device" "$TMP/out" ||
		fail "it does not say who has it open: $(cat "$TMP/out")"
	kill $holder
	wait $holder || :
	reset() { weft reset --discard r >"$TMP/out" 2>&1; }
	wait_for -t 60 reset
	sync "$device" || :
	cmp -n 65536 "$device" <(head -c 65536 /dev/zero | tr '\0' B) ||
		fail "it does not have what is there now"
	fill G | dd of="$device" bs=4096 conv=notrunc,fsync status=none || fail "it takes no write"
	weft detach r || fail "detach"
	io "$donor" -r -c 'read -P 0x47 0 4096' -c 'read -P 0x42 4096 61440' ||
		fail "written over after the reset: $(cat "$TMP/io")"
done
stop_donor || fail "the donor's exit status: $?"
END
