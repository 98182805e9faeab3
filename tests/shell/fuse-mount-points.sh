# SPDX-License-Identifier: MIT
# Mount points: a file that was there stays, a foreign dead mount is explained, a live one is left
# alone, and unmounting by hand is detaching.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
[[ $EUID = 0 ]] || skip "umount needs root"
need_tool nbdfuse nbdkit jq

start_donor --memory r=1M --memory q=1M
echo mine >"$TMP/file"
weft attach "$URI" --mount "$TMP/file" >/dev/null
[[ $(stat -c %s "$TMP/file") = 1048576 ]] || fail "not mounted"
answer=$(weft attach "${URI%/r}/q" --mount "$TMP/file" 2>&1) && fail "mounted twice"
[[ $answer = *"is mounted on $TMP/file already"* ]] || fail "$answer"
ended() {
	[[ ! -e $WEFT_RUN_DIR/attach-r.json ]]
}
umount "$TMP/file"
wait_for ended
[[ $(cat "$TMP/file") = mine ]] || fail "the file that was there is not the same"
nbdfuse -P "$TMP/nbdfuse.pid" "$TMP/file" [ nbdkit null 1M ] &
wait_for test -s "$TMP/nbdfuse.pid"
wait_for grep -q "$TMP/file" /proc/self/mountinfo
kill -KILL "$(cat "$TMP/nbdfuse.pid")"
dead() {
	[[ $(stat "$TMP/file" 2>&1) = *"not connected"* ]]
}
wait_for dead
answer=$(weft attach "$URI" --mount "$TMP/file" 2>&1) && fail "mounted over a dead mount"
[[ $answer = *"clear it with: umount $TMP/file"* ]] || fail "$answer"
umount "$TMP/file"
weft attach "$URI" --mount "$TMP/file" >/dev/null
weft detach r
