# SPDX-License-Identifier: MIT
# What weft swap refuses before it makes anything, all of it at once, and --force; its status where
# nothing is swapped, by its schema, which the manual has.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

schema() { jq -r --arg of swaps --arg keys "$1" -f "$WEFT_SRC/tests/support/status-schema.jq"; }

start_donor --memory r=16M
! weft swap on "$URI" --cache-file "$TMP/c" --dead-timeout 0 --device /dev/loop7 >"$TMP/out" 2>&1 ||
	fail "not refused"
for text in "--cache-file $TMP/c: writing to a file takes memory" \
	"/dev/loop7 is no device of weft's" "--dead-timeout 0: with a donor that is gone" \
	"the donor of $URI is this machine"; do
	grep -qF -- "weft-swap: not safe: $text" "$TMP/out" || fail "not '$text': $(cat "$TMP/out")"
done
grep -qE 'not done, as [0-9]+ things above are not safe; --force' "$TMP/out" ||
	fail "$(cat "$TMP/out")"
[[ ! $(compgen -G "$WEFT_RUN_DIR/swap-*.json") ]] || fail "something was made"
weft swap on "$URI" --force --dry-run >"$TMP/out" 2>&1 || fail "--force: $(cat "$TMP/out")"
grep -q "^'r' could be swapped to" "$TMP/out" || fail "$(cat "$TMP/out")"

! weft swap on weft://192.0.2.1/r --slice weft-none.slice --dry-run >"$TMP/out" 2>&1 ||
	fail "a group that there is not"
grep -q 'there is no group /sys/fs/cgroup/weft.slice/weft-none.slice' "$TMP/out" ||
	fail "$(cat "$TMP/out")"
misused() { # TEXT ARGUMENT…
	local status=0
	weft swap on "${@:2}" >"$TMP/out" 2>&1 || status=$?
	[[ $status = 2 ]] && grep -qF -- "$1" "$TMP/out" || fail "${*:2}: $status $(cat "$TMP/out")"
}
misused '--mirror 2 wants 2 URIs, or a multiple of that' weft://a/r weft://b/r weft://c/r --mirror 2
misused 'of which not all are copies of each other' weft://a/r weft://b/r --mirror 2 --stripe
misused 'several URIs want --stripe, or --mirror' weft://a/r weft://b/r --device /dev/nbd0
! weft swap off r >"$TMP/out" 2>&1 || fail "off"
grep -q "there is no swap 'r'; weft swap status shows all" "$TMP/out" || fail "$(cat "$TMP/out")"
weft swap off --all || fail "nothing to end"
! weft swap status r >"$TMP/out" 2>&1 || fail "status of none"

weft swap status | grep -q '^nothing is swapped to a donor' || fail "$(weft swap status)"
weft swap status --json >"$TMP/json"
[[ ! $(schema no <"$TMP/json") ]] || fail "$(schema no <"$TMP/json")"
schema yes <"$TMP/json" >"$TMP/keys"
(($(wc -l <"$TMP/keys") > 40)) || fail "no keys"
! grep -E '(_(ms|us|ns|kib|mib|sec|seconds|size)|^bytes)$' "$TMP/keys" ||
	fail "another unit, or none"
while read -r key; do
	grep -qE "(^|[^a-z_])$key([^a-z_]|$)" "$WEFT_SRC"/fabric/man/weft-{swap,status}.1 ||
		fail "weft-swap(1) does not name $key"
done <"$TMP/keys"
stop_donor
