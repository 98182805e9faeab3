# SPDX-License-Identifier: MIT
# A donor that cannot move a region says so, also after its holder was started anew.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq curl
. "${BASH_SOURCE[0]%/*}/../pool.sh"

start_pool
pool_donor n1 64M
weft pool alloc l --size 1M 2>/dev/null >/dev/null || fail "alloc"
holder() { pgrep -P "$DONOR_PID" -x weftholder; }
was=$(holder)
kill -KILL "$was"
other_holder() {
	local is
	is=$(holder) && [[ $is != "$was" ]]
}
wait_for -t 60 other_holder

# Nobody listens where this one says that it does.
curl_pool POST /v1/donors/n2 -d '{"uri": "weft://127.0.0.1:1", "lent_bytes": 1073741824, "since": 1,
	"regions": [], "refused": [], "stays": []}' | grep -qx 200 || fail "no other donor"
! weft pool move l --to n2 >"$TMP/move" 2>&1 || fail "it says that it moved: $(<"$TMP/move")"
grep -q "copy 0 of 'l' did not move to n2, and is at n1; " "$TMP/move" || fail "$(<"$TMP/move")"
! weft pool move l --to n1 >"$TMP/move" 2>&1 || fail "to where it is"
grep -q "the donor 'n1' has it already" "$TMP/move" || fail "$(<"$TMP/move")"
stays() { weft pool audit | grep -q 'stays .*did not move to n2: weft move failed (status 1)'; }
wait_for -t 60 stays
lease_is l ready || fail "$(weft pool leases l)"
