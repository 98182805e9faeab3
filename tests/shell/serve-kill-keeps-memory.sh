# SPDX-License-Identifier: MIT
# presets: dev asan tsan
# kill -9 loses neither bytes nor epoch: the next daemon with the same --memory line has both.
# Memory that was given back, and is lent anew, begins with zeros.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io

port=$(free_port)
serve=(--listen "127.0.0.1:$port" --memory scratch=32M --memory other=1M)
epochs() {
	sed -n 's/^region .*epoch \([0-9a-f]*\) .*/\1/p' "$DONOR_LOG"
}

start_donor "${serve[@]}"
before=$(epochs)
qemu-io -f raw "nbd://127.0.0.1:$port/scratch" -c 'write -P 0xab 0 32M' >/dev/null
for round in 1 2 3; do
	stop_donor KILL || :
	start_donor "${serve[@]}"
	grep -q "^recovered region 'scratch' (32 MiB), epoch" "$DONOR_LOG" ||
		fail "round $round: nothing recovered"
	[[ $(epochs) = "$before" ]] || fail "round $round: other epochs: $(epochs), not $before"
	qemu-io -f raw "nbd://127.0.0.1:$port/scratch" -c 'read -P 0xab 0 32M' |
		grep -q 'read 33554432/33554432' ||
		fail "round $round: other bytes"
done
# Handed on each time: one holder is left, not four.
wait_for bash -c "[[ \$(ls $WEFT_RUN_DIR/hold-*.sock | wc -l) = 1 ]]"

# Another size for the same name is refused, with the way out.
stop_donor KILL || :
if weft-serve --listen "127.0.0.1:$port" --memory scratch=64M >"$TMP/log" 2>&1; then
	fail "another size was taken"
fi
grep -q "left 32 MiB (33554432 bytes) of contents" "$TMP/log" || fail "$(cat "$TMP/log")"
# That attempt changed nothing.
start_donor "${serve[@]}"
[[ $(epochs) = "$before" ]] || fail "other epochs after a refused start"

# Killing the process that was named gives them up.
stop_donor KILL || :
weft-serve --listen "127.0.0.1:$port" --memory scratch=64M >"$TMP/log" 2>&1 &&
	fail "another size was taken"
kill "$(sed -n 's/.*give up all that is kept there: kill \([0-9]*\)$/\1/p' "$TMP/log")"
wait_for bash -c "! ls $WEFT_RUN_DIR/hold-*.sock"
anew() {
	start_donor --listen "127.0.0.1:$port" --memory scratch=64M
	qemu-io -f raw "nbd://127.0.0.1:$port/scratch" -c 'read -P 0 0 64M' |
		grep -q 'read 67108864/67108864' || fail "there are no zeros"
}
anew

# SIGTERM gives the memory back at once: no process maps it, or has it open.
inodes=$(sed -n 's,.* \([0-9][0-9]*\) */memfd:.*,\1,p' "/proc/$DONOR_PID/maps" | sort -u)
[[ -n $inodes ]] || fail "the donor maps no memory: $(cat "/proc/$DONOR_PID/maps")"
has_it() {
	local inode file
	for inode in $inodes; do
		grep -lsE " $inode +/memfd:" /proc/[0-9]*/maps || :
		while read -r file; do
			[[ $(stat -Lc %i "$file" 2>/dev/null) != "$inode" ]] || echo "$file"
		done < <(find /proc/[0-9]*/fd -lname '/memfd:*' 2>/dev/null)
	done
}
[[ $(has_it | sort -u | grep -c .) -gt 1 ]] || fail "not even the donor and its holder: $(has_it)"
qemu-io -f raw "nbd://127.0.0.1:$port/scratch" -c 'write -P 0xab 0 64M' >/dev/null
stop_donor || fail "exit status $?"
nobody_has_it() { [[ -z $(has_it) ]]; }
wait_for nobody_has_it || fail "$(has_it)"
wait_for bash -c "! ls $WEFT_RUN_DIR/hold-*.sock"
anew
