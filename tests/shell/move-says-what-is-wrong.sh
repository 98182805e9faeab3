# SPDX-License-Identifier: MIT
# Why a region does not move, or what became of it, is said: by old donors, donors that refuse,
# donors that die midway, and answers that are none.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../move.sh"
need_tool jq python3

from=weft://127.0.0.1:1/r
# says CODE TEXT…: a move to the donor b ends with the code, and each text is in what it says.
says() {
	local text code=0
	weft move "$from" "weft://127.0.0.1:$B_PORT" >"$TMP/out" 2>"$TMP/err" || code=$?
	[[ $code = "$1" ]] || fail "exit status $code, not $1: $(cat "$TMP/out" "$TMP/err")"
	for text in "${@:2}"; do
		grep -qF "$text" "$TMP/err" "$TMP/out" ||
			fail "not '$text': $(cat "$TMP/out" "$TMP/err")"
	done
}
# answers SCRIPT: the donor b.
answers() {
	[[ ! ${B_PID-} ]] || kill "$B_PID" 2>/dev/null || :
	scripted b "$1"
	B=weft://127.0.0.1:$B_PORT
}
# moving STATUS…: a script that takes the region, and then says these.
moving() {
	jq -nc --arg id "$ID" --argjson statuses "[$(IFS=, && echo "$*")]" \
		'{takes: [{takes: []}], take: [{move: $id}], "take-status": $statuses}'
}

echo "an old donor"
answers '{}'
says 1 "weft-move: $B runs a weft that cannot move regions"

echo "refusals"
start_donor --memory q=1M
B_PORT=$PORT
says 1 "weft-move: cannot move $from to weft://127.0.0.1:$PORT/r: this donor takes no regions"
stop_donor
answers '{"takes": [{"refuse": "EACCES: key '\''bob'\'' is not for what changes this donor"}]}'
says 1 "weft-move: $B: key 'bob' is not for what changes this donor"
answers '{"takes": [{"takes": []}],
	"take": [{"refuse": "ENOSPC: 1 GiB is wanted, 3 MiB are free"}]}'
says 1 "weft-move: cannot move $from to $B/r: 1 GiB is wanted, 3 MiB are free"
answers '{"takes": [{"takes": []}], "take": [{"refuse": "E\u001b[2Jvil"}]}'
says 1 "E?[2Jvil"
differs=$(status failed '{error: "4 MiB differ after the third copy"}')
answers "$(moving "$(status pull)" "$differs" |
	jq -c '. + {resolve: [{is: "nothing"}]}')"
scripted giver '{"resolve": [{"is": "owner"}]}'
from=weft://127.0.0.1:$GIVER_PORT/r
says 1 "the move of $from to $B/r failed: 4 MiB differ after the third copy; the same command" \
	"weft-move: $B has no region 'r'" \
	"weft-move: weft://127.0.0.1:$GIVER_PORT has region 'r' and serves it"

echo "nobody there"
kill "$B_PID"
wait_for gone "$B_PID"
says 1 "weft-move: no donor at $B: connection refused; is weft serve running there?"

echo "the donor that takes it dies midway"
kill "$GIVER_PID"
scripted giver '{"resolve": [{"is": "given", "to": "weft://b.example/r"}]}'
from=weft://127.0.0.1:$GIVER_PORT/r
answers "$(moving "$(status pull)" '{"die": true}')"
says 1 "cannot ask $B: the server hung up; trying again for 10 s" \
	"weft-move: what $B has of the region is not known: no donor at $B" \
	"weft-move: weft://127.0.0.1:$GIVER_PORT gave region 'r' away, to weft://b.example/r" \
	"the move may go on: the same command asks what became of it"
asked giver '. == {op: "resolve", region: "r"}' || fail "$(<"$GIVER_LOG")"

echo "it starts anew meanwhile"
for is in owner prepared refused nothing; do
	kill "$GIVER_PID"
	scripted giver '{"resolve": [{"is": "owner"}]}'
	from=weft://127.0.0.1:$GIVER_PORT/r
	unknown='{"refuse": "ENOENT: no such move"}'
	answers "$(moving "$(status pull)" '{"hang_up": true}' "$unknown" |
		jq -c --arg is "$is" '. + {resolve: [{is: $is}]}')"
	case $is in
	owner) says 0 "moved $from to $B/r" ;;
	prepared) says 1 "$B is ready to serve region 'r'" "the move may go on" ;;
	refused) says 1 "$B does not serve region 'r'" "the same command begins again" ;;
	nothing) says 1 "$B has no region 'r'" "the same command begins again" ;;
	esac
done

echo "a connection that is lost comes back"
answers "$(moving "$(status pull)" '{"hang_up": true}' "$(status "done")")"
says 0 "moved $from to $B/r: 1 GiB" "trying again"

echo "it has ended already"
ended=$(status "done" "$(jq -nc --arg from "$from" '{from: $from, region: "r"}')")
answers '{"takes": [{"takes": []}, {"takes": ['"$ended"']}],
	"take": [{"refuse": "EEXIST: it is there"}]}'
says 0 "moved $from to $B/r: 1 GiB some time ago, 1 round"
from=weft://127.0.0.1:1/r
says 1 "cannot move $from to $B/r: it is there"

echo "answers that are none"
answers '{"takes": [{"takes": []}], "take": [{"move": "7"}]}'
says 1 "the donor's answer has no proper 'move'"
for wrong in '{"phase": null}' '{"phase": 7}' '{"size": -1}' '{"copied": "1"}' \
	'{"round": 4294967296}' '{"eta_ms": "soon"}' '{"error": {}}' '{"rate": 1e30}'; do
	answers "$(moving "$(status pull "$wrong")" | jq -c '. + {resolve: [{is: "owner"}]}')"
	says 0 "has no proper '" "has region 'r' and serves it"
done
answers "$(moving "$(status pull '{phase: "a-newer-word"}')" "$(status "done")")"
says 0 "moved "

echo "several regions: one that does not move stops no other"
answers "$(moving "$(status "done")" |
	jq -c '.take = [{move: "'"$ID"'"}, {refuse: "EEXIST: it is there"}, {move: "'"$ID"'"}]')"
code=0
weft move weft://a/r weft://a/q weft://a/p "$B" >"$TMP/out" 2>"$TMP/err" || code=$?
[[ $code = 1 && $(wc -l <"$TMP/out") = 2 ]] || fail "exit status $code: $(<"$TMP/out")"
grep -qx "weft-move: cannot move weft://a/q to $B/q: it is there" "$TMP/err" ||
	fail "$(<"$TMP/err")"
grep -qx "weft-move: 2 of 3 regions have moved; not: weft://a/q" "$TMP/err" || fail "$(<"$TMP/err")"
