# SPDX-License-Identifier: MIT
# A file that was unmounted by hand is the user's: no detach removes it, with a bridge that lives or
# one that died.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
[[ $EUID = 0 ]] || skip "umount needs root"
need_tool jq

start_donor --memory r=1M
mine() {
	[[ $(cat "$TMP/file") = "$1" ]] || fail "the user's file is gone: $1"
}
told() {
	[[ $(weft status r) = *"file $TMP/file, no longer mounted"* ]]
}
weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" >/dev/null
umount "$TMP/file"
echo important >"$TMP/file"
wait_for told
weft detach r || fail "detach: $?"
mine important

# At once, before the bridge can have seen it; and empty still.
rm "$TMP/file"
weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" >/dev/null
umount "$TMP/file"
weft detach r || fail "detach right after umount: $?"
[[ -e $TMP/file ]] || fail "an empty file that was unmounted by hand is gone"

# Nobody unmounted it: it goes.
rm "$TMP/file"
weft attach "$URI" --mount "$TMP/file" >/dev/null
weft detach r
[[ ! -e $TMP/file ]] || fail "what was made is left behind"

# Another file in its place.
weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" >/dev/null
umount "$TMP/file"
rm "$TMP/file"
echo other >"$TMP/file"
kill -KILL "$(weft status r --json | jq '.attachments[0].pid')"
dead() {
	[[ $(weft status r) = *" dead: "* ]]
}
wait_for dead
weft detach r >/dev/null || fail "detach of a dead bridge: $?"
mine other
