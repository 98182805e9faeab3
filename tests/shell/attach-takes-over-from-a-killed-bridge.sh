# SPDX-License-Identifier: MIT
# A bridge killed with -9: its file is cleared, the next one of its name has the region at once,
# with a higher incarnation.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool jq

not_connected() {
	! stat "$TMP/file" && [[ $(stat "$TMP/file" 2>&1) = *"not connected"* ]]
}

start_donor --memory r=8M
weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" >/dev/null
pid=$(weft status r --json | jq '.attachments[0].pid')
random_file "$TMP/image" 8M
dd if="$TMP/image" of="$TMP/file" bs=1M conv=notrunc,fsync status=none
kill -KILL "$pid"
wait_for not_connected
[[ $(weft status r) = *"dead: the bridge died"* ]] || fail "$(weft status r)"
weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" >"$TMP/out" || fail "not taken over"
grep -q 'taken over from a bridge that died' "$TMP/out" || fail "$(cat "$TMP/out")"
cmp "$TMP/image" "$TMP/file"
[[ $(weft status r --json | jq -r '.attachments[0].generation') = 2.0 ]] || fail "the generation"
weft detach r
[[ ! -e $TMP/file && ! -e $TMP/s ]] || fail "left behind"
