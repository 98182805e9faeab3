# SPDX-License-Identifier: MIT
# Detaching what was killed removes its socket, its dead mount and its state, and gives the donor
# its region back.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool jq

start_donor --memory r=1M
weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" >/dev/null
kill -KILL "$(weft status r --json | jq '.attachments[0].pid')"
dead() {
	[[ $(weft status r) = *" dead: "* ]]
}
wait_for dead
answer=$(weft reset r 2>&1) && fail "a dead bridge was reset"
[[ $answer = \
	"weft-reset: the bridge of 'r' died: there is nothing to reset; attach it again, or end it with: weft detach r" ]] || fail "$answer"
weft detach "$TMP/file" || fail "not detached"
[[ ! -e $TMP/file && ! -e $TMP/s ]] || fail "left behind: $(ls -l "$TMP")"
! grep -q "$TMP/file" /proc/self/mountinfo || fail "the mount was left behind"
[[ -z $(compgen -G "$WEFT_RUN_DIR/attach-r.json") ]] || fail "the state was left behind"

echo "the region is free at once, not at the end of the lease"
weft attach "$URI" --socket "$TMP/s" --name another >"$TMP/out" 2>&1 ||
	fail "still held: $(cat "$TMP/out")"
kill -KILL "$(weft status another --json | jq '.attachments[0].pid')"
stop_donor || fail "the donor: $?"
weft detach another >"$TMP/out" || fail "without a donor: $(cat "$TMP/out")"
grep -q "could not be told" "$TMP/out" || fail "$(cat "$TMP/out")"
