# SPDX-License-Identifier: MIT
# The file of a bridge that was killed is taken over, and detached, although the kernel answers
# lstat(2) from what it remembers; status shows it, whatever was tried meanwhile.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool jq

start_donor --memory r=8M --memory other=1M
random_file "$TMP/random" 65536
killed() { # attaches, looks at the file, kills the bridge
	weft attach "$URI" --mount "$TMP/y.img" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
	dd if="$TMP/random" of="$TMP/y.img" conv=notrunc,fsync status=none
	ls -l "$TMP/y.img" >/dev/null
	pid=$(weft status r --json | jq '.attachments[0].pid')
	kill -KILL "$pid"
	wait_for gone "$pid"
	ls -l "$TMP/y.img" >/dev/null ||
		fail "the kernel remembers nothing: this test tests nothing"
}
shown() {
	[[ $(weft status) = *"r  $URI  dead"*"file $TMP/y.img"* ]] || fail "status: $(weft status)"
	[[ $(weft status r) = *dead* ]] || fail "status r: $(weft status r)"
	[[ $(weft status --json | jq -r '.attachments[0].state') = dead ]] || fail "status --json"
}

echo "taken over"
killed
shown
weft attach "$URI" --mount "$TMP/y.img" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep -q "taken over" "$TMP/out" || fail "$(cat "$TMP/out")"
cmp -n 65536 "$TMP/random" "$TMP/y.img" || fail "other contents"
weft detach r >/dev/null
[[ ! -e $TMP/y.img ]] || fail "left behind"

echo "detached, with and without force, by name and by path"
for what in "r" "--force r" "$TMP/y.img" "--force $TMP/y.img"; do
	killed
	# shellcheck disable=SC2086 # words
	weft detach $what >"$TMP/out" 2>&1 || fail "detach $what: $(cat "$TMP/out")"
	[[ ! -e $TMP/y.img && -z $(compgen -G "$WEFT_RUN_DIR/attach-r*") ]] ||
		fail "left behind: $(ls "$TMP" "$WEFT_RUN_DIR")"
done

echo "after a take-over that failed it is shown, and is detached by its path still"
killed
mkdir "$TMP/taken"
! weft attach "$URI" --mount "$TMP/taken" >"$TMP/out" 2>&1 || fail "a directory was mounted on"
[[ $(weft status) = *"r  $URI  dead"* ]] || fail "status: $(weft status)"
weft detach --force r >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"

echo "what lives is not taken, even if it hangs"
weft attach "$URI" --mount "$TMP/live" --name live >/dev/null
other=weft://127.0.0.1:$PORT/other
! weft attach "$other" --mount "$TMP/live" >"$TMP/out" 2>&1 || fail "mounted on what lives"
grep -q "a weft region is mounted on $TMP/live already; weft status" "$TMP/out" ||
	fail "$(cat "$TMP/out")"
pid=$(weft status live --json | jq '.attachments[0].pid')
kill -STOP "$pid"
cleanup_add "kill -KILL $pid 2>/dev/null"
status=0
timeout 20 weft attach "$other" --mount "$TMP/live" >"$TMP/out" 2>&1 || status=$?
kill -CONT "$pid"
[[ $status = 1 && $(cat "$TMP/out") = *"its bridge does not answer"* ]] ||
	fail "exit status $status: $(cat "$TMP/out")"
weft detach live
