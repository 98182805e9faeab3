# SPDX-License-Identifier: MIT
# weft swap off ends what weft swap on made.  An attachment that has the name by now is let be: one
# of another region, one with another device; and one that may be what a killed weft swap on left,
# while somebody uses it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq
[[ $EUID = 0 ]] || skip "swap spaces are root's to end"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"

start_donor --memory r=16M

# note BACKEND URI: of a swap 'r' that was made in this life of the machine
note() {
	jq -n --arg boot "$(</proc/sys/kernel/random/boot_id)" --arg backend "$1" --arg uri "$2" \
		'{schema: 1, name: "r", $boot, priority: 10, group: "", exclusive: false,
		settings: [], members: [{attachment: "r", device: "/dev/nbd77", $backend, $uri}]}' \
		>"$WEFT_RUN_DIR/swap-r.json"
}
# off_leaves WHY
off_leaves() {
	weft swap off r >"$TMP/out" 2>&1 || fail "$1: $(cat "$TMP/out")"
	[[ ! -e $WEFT_RUN_DIR/swap-r.json ]] || fail "$1: the note is left"
	[[ $(weft status --json | jq -r '.attachments[0].name') = r ]] || fail "$1: $(weft status)"
	[[ $(head -c 5 "$TMP/r") = weft! ]] || fail "$1: the file is gone"
}

touch "$TMP/r"
weft attach "$URI" --mount "$TMP/r" --name r >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
printf 'weft!' | dd of="$TMP/r" conv=notrunc status=none
note weft:r:0123456789abcdef "$URI"
off_leaves "another device"
note "" weft://other/r
off_leaves "another region"

exec 9<"$TMP/r"
note "" "$URI"
! weft swap off r >"$TMP/out" 2>&1 || fail "somebody uses it: $(cat "$TMP/out")"
[[ $(head -c 5 "$TMP/r") = weft! ]] || fail "the file is gone from under its user"
exec 9<&-
weft swap off r >"$TMP/out" 2>&1 || fail "what may be left of weft swap on: $(cat "$TMP/out")"
[[ $(weft status --json | jq '.attachments | length') = 0 ]] || fail "$(weft status)"
stop_donor
