# SPDX-License-Identifier: MIT
# Between donors with keys: who moves a region shows the taker a key for what changes the donor, and
# for the region; the taker shows the giver its own.  Everybody else gets nothing, and no region is
# another's to move.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

new_key() { # STORE NAME [GRANT…]
	weft key new "$2" --store "$TMP/$1" --out "$TMP/$2" "${@:3}" >/dev/null || fail "key $2"
}
new_key giver-keys taker --admin
new_key giver-keys stranger
new_key taker-keys mover --admin
new_key taker-keys plain
new_key taker-keys other --admin --region other
random_file "$TMP/contents" 8388608
start_donor --memory r=8M --memory q=1M --keys "$TMP/giver-keys"
from=weft://127.0.0.1:$PORT
weft push --key "$TMP/taker" "$TMP/contents" "$from/r" >/dev/null || fail "push"
WEFT_KEY=$TMP/taker start_donor --memory mine=1M --take 64M --keys "$TMP/taker-keys"
to=weft://127.0.0.1:$PORT taker_log=$DONOR_LOG

refused() { # TEXT KEY [OPTION…]
	local code=0
	weft move "$from/r" "$to" --key "$TMP/$2" "${@:3}" >"$TMP/out" 2>"$TMP/err" || code=$?
	[[ $code = 1 && ! -s $TMP/out ]] || fail "exit status $code: $(<"$TMP/out")"
	grep -qF "$1" "$TMP/err" || fail "not '$1': $(<"$TMP/err")"
}
refused "$to: key 'plain' is not for what changes this donor" plain
refused "key 'other' is not for a region 'r'" other
refused "key 'other' is not for a region 'r'" other --dry-run
refused "cannot ask $to: the server did not accept the key of stranger" stranger
! grep -q "region 'r' from" "$taker_log" || fail "it began: $(<"$taker_log")"

weft move --dry-run --key "$TMP/mover" "$from/r" "$to" >"$TMP/out" || fail "$(<"$TMP/out")"
weft move --key "$TMP/mover" "$from/r" "$to" >"$TMP/out" || fail "$(<"$TMP/out")"
grep -q "^moved $from/r to $to/r: 8 MiB in " "$TMP/out" || fail "$(<"$TMP/out")"
# It is the move of those that have a key for the region, and of nobody else.
weft move --key "$TMP/mover" "$from/r" "$to" >"$TMP/out" || fail "$(<"$TMP/out")"
grep -q "^moved $from/r to $to/r: 8 MiB some time ago, " "$TMP/out" || fail "$(<"$TMP/out")"
refused "key 'other' is not for a region 'r'" other
weft pull --key "$TMP/mover" "$to/r" "$TMP/there" >/dev/null || fail "pull"
cmp "$TMP/contents" "$TMP/there" || fail "other contents"
weft list --json --key "$TMP/taker" "$from" | jq -e 'map(.name) == ["q"]' >/dev/null ||
	fail "the giver has it still"
