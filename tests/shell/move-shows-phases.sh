# SPDX-License-Identifier: MIT
# weft move asks the donor that takes a region, shows what that donor says of the move, by phases as
# JSON with a schema, and in the end as a line; --dry-run changes nothing.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../move.sh"
need_tool jq python3

schema=$WEFT_SRC/tests/support/status-schema.jq
ended=$(status "done" '{copied: 1095216660, left: 0, round: 3, eta_ms: null, downtime_ms: 31,
	checked: 1073741824}')
scripted b "$(jq -nc --arg id "$ID" --argjson track "$(status track '{rate: 0, eta_ms: null}')" \
	--argjson pull "$(status pull)" --argjson finalize "$(status finalize '{round: 3}')" \
	--argjson ended "$ended" '{takes: [{takes: []}], take: [{move: $id}],
	"take-status": [$track, $pull, $pull, $finalize, $ended]}')"
to=weft://127.0.0.1:$B_PORT

weft move weft://a.example/r "$to" >"$TMP/out" 2>"$TMP/err" || fail "$(<"$TMP/err")"
line="^moved weft://a\.example/r to $to/r: 1 GiB in [0-9]\.[0-9] s, 3 rounds, "
line+="1\.0[0-9]* GiB copied, all compared, downtime 31 ms$"
grep -qE "$line" "$TMP/out" || fail "$(<"$TMP/out")"
asked b '. == {op: "take", from: "weft://a.example/r", region: "r", as: "'"$to"'/r", bandwidth: 0,
	downtime_ms: 50, disconnect: false, dry_run: false}' || fail "it asked: $(<"$B_LOG")"
asked b '.op == "take-status" and .move == "'"$ID"'"' || fail "it asked: $(<"$B_LOG")"

echo "options, and another name"
from=weft://alice@a.example:7/r
weft move --bandwidth 200M --downtime 0.2s --disconnect "$from" "$to/other" >"$TMP/out" ||
	fail "$(<"$TMP/out")"
asked b '. == {op: "take", from: "'"$from"'", region: "other", as: "'"$to"'/other",
	bandwidth: 209715200, downtime_ms: 200, disconnect: true, dry_run: false}' ||
	fail "it asked: $(<"$B_LOG")"
grep -qF "moved $from to $to/other: " "$TMP/out" || fail "$(<"$TMP/out")"
kill "$B_PID"

echo "JSON"
scripted b "$(jq -nc --arg id "$ID" --argjson track "$(status track '{rate: 0, eta_ms: null}')" \
	--argjson pull "$(status pull)" --argjson finalize "$(status finalize '{round: 3}')" \
	--argjson ended "$ended" '{takes: [{takes: []}], take: [{move: $id}],
	"take-status": [$track, $pull, $pull, $finalize, $ended]}')"
weft move --json weft://a.example/r "weft://127.0.0.1:$B_PORT" >"$TMP/json" || fail "JSON"
jq -se 'map(.phase) == ["track", "pull", "finalize", "done"] and
	map(.result) == [null, null, null, "moved"] and all(.[]; .move == "'"$ID"'") and
	.[1].eta_s == 1.5 and .[1].rate_bytes_per_s == 104857600 and .[0].eta_s == null and
	.[3].downtime_s == 0.031 and .[3].copied_bytes == 1095216660' "$TMP/json" >/dev/null ||
	fail "$(<"$TMP/json")"
wrong=$(jq -s . "$TMP/json" | jq -r --arg keys no --arg of moves -f "$schema") || fail "jq"
[[ ! $wrong ]] || fail "$wrong"
kill "$B_PID"

echo "a dry run"
scripted b '{"takes": [{"takes": []}], "take": [
	{"could": false, "size": 1073741824, "free": 536870912, "borrowers": 2,
		"why": "it has less memory than that",
		"cannot_follow": ["a stock NBD client at 10.0.0.3"]},
	{"could": false, "size": 1073741824, "free": 536870912, "borrowers": 2, "why": "no",
		"cannot_follow": []},
	{"could": true, "size": 1073741824, "free": 2147483648, "borrowers": 1}]}'
to=weft://127.0.0.1:$B_PORT
code=0
weft move --dry-run weft://a.example/r "$to" >"$TMP/out" || code=$?
[[ $code = 1 ]] || fail "exit status $code"
line="weft://a.example/r cannot move to $to/r: it has 1 GiB, and 512 MiB can be had there; "
diff - "$TMP/out" <<END || fail "it says otherwise"
${line}it has 2 borrowers
it has less memory than that
cannot follow: a stock NBD client at 10.0.0.3
END
weft move --dry-run --json weft://a.example/r "$to" >"$TMP/json" && fail "exit status 0"
jq -e '.result == "impossible" and .error == "no" and .free_bytes == 536870912' "$TMP/json" \
	>/dev/null || fail "$(<"$TMP/json")"
wrong=$(jq -s . "$TMP/json" | jq -r --arg keys no --arg of trials -f "$schema") || fail "jq"
[[ ! $wrong ]] || fail "$wrong"
weft move --dry-run weft://a.example/r "$to" >"$TMP/out" || fail "exit status $?"
line="weft://a.example/r can move to $to/r: it has 1 GiB, and 2 GiB can be had there; "
grep -qxF "${line}it has 1 borrower" "$TMP/out" || fail "$(<"$TMP/out")"
asked b '.op == "take" and .dry_run' || fail "it asked: $(<"$B_LOG")"
! asked b '.op == "take-status"' || fail "it asked: $(<"$B_LOG")"

echo "names"
for of in moves trials; do
	jq -rn --arg keys yes --arg of $of -f "$schema"
done >"$TMP/keys"
(($(wc -l <"$TMP/keys") > 20)) || fail "no keys"
while read -r key; do
	grep -qE "(^|[^a-z_])$key([^a-z_]|$)" "$WEFT_SRC/fabric/man/weft-move.1" ||
		fail "weft-move(1) does not name $key"
done <"$TMP/keys"
