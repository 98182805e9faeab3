# SPDX-License-Identifier: MIT
# A donor that lends to whoever comes is told of by all that shows it: its own first lines, weft
# status in each form, and weft list from elsewhere. One that asks for a key is not.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool jq
over_the_network

why='asks for no key: whoever reaches it gets what it lends'
start_donor --memory r=1M --listen 192.0.2.1:0 --allow-insecure
grep -q "warning: whoever reaches 192.0.2.1:$PORT can read and write all regions" "$DONOR_LOG" ||
	fail "$(cat "$DONOR_LOG")"
weft list "weft://192.0.2.1:$PORT" >/dev/null 2>"$TMP/list"
grep -qxF "weft-list: warning: 192.0.2.1 $why" "$TMP/list" || fail "$(cat "$TMP/list")"
grep -qF 'lends to WHOEVER COMES, without a key (--allow-insecure)' <(weft status) ||
	fail "$(weft status)"
weft status --json | jq -e '.donors[0] | .allow_insecure and .keys == null' >/dev/null ||
	fail "$(weft status --json)"
grep -q '^weft_donor_allow_insecure{.*} 1$' <(weft status --prometheus) ||
	fail "$(weft status --prometheus)"
stop_donor || fail "exit status $?"

make_keys "$TMP/keys" alice
start_donor --memory r=1M --listen 192.0.2.1:0 --listen 127.0.0.1:0 --keys "$TMP/keys"
grep -qxF "keys in $TMP/keys: 1" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
! grep -q 'whoever reaches' "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
weft list "weft://alice@192.0.2.1:$PORT" --key "$TMP/keys-alice.psk" >/dev/null 2>"$TMP/list"
! grep -q 'no key' "$TMP/list" || fail "$(cat "$TMP/list")"
local_place=$(sed -n 's/^listening on \(127.*\)/\1/p' "$DONOR_LOG")
weft list "weft://$local_place" >/dev/null 2>"$TMP/list"
! grep -q 'no key' "$TMP/list" || fail "$(cat "$TMP/list")"
grep -qF "lends to those who have a key of $TMP/keys, which has 1" <(weft status) ||
	fail "$(weft status)"
weft status --json | jq -e --arg dir "$TMP/keys" '.donors[0] | (.allow_insecure | not) and
	.keys == {"directory": $dir, "identities": 1}' >/dev/null || fail "$(weft status --json)"
grep -q '^weft_donor_keys{.*} 1$' <(weft status --prometheus) || fail "$(weft status --prometheus)"
stop_donor || fail "exit status $?"

# A store that has none yet lets nobody in from elsewhere, and says so.
make_keys "$TMP/none"
start_donor --memory r=1M --listen 192.0.2.1:0 --keys "$TMP/none"
grep -q "warning: there is no key in $TMP/none yet, so nobody is let in from elsewhere" \
	"$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
! weft list "weft://192.0.2.1:$PORT" >"$TMP/list" 2>&1 || fail "$(cat "$TMP/list")"
grep -q "wants a key" "$TMP/list" || fail "$(cat "$TMP/list")"
