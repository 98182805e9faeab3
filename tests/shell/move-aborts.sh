# SPDX-License-Identifier: MIT
# Control-C, and SIGTERM, abort a move and say what became of it; where it is too late for that, the
# move goes on to its end.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../move.sh"
need_tool jq python3

# nr_asked OP: how many such questions there were.
nr_asked() {
	jq -s --arg op "$1" 'map(select(.op == $op)) | length' "$B_LOG"
}

# begin SCRIPT [OPTION…]: a move to a donor with it, once it has been asked how far it is.
begin() {
	[[ ! ${B_PID-} ]] || kill "$B_PID"
	scripted b "$1"
	weft-move weft://a.example/r "weft://127.0.0.1:$B_PORT" "${@:2}" >"$TMP/out" 2>"$TMP/err" &
	pid=$!
	wait_for -t 120 asked b '.op == "take-status"'
}

# script ANSWER-TO-ABORT LATER: pulls until it is told to abort, then is LATER.
script() {
	jq -nc --arg id "$ID" --argjson pull "$(status pull)" --argjson abort "$1" \
		--argjson later "$2" '{takes: [{takes: []}], take: [{move: $id}],
		"take-status": [$pull], "take-abort": [$abort],
		then: {"take-abort": {"take-status": [$pull, $later]}}}'
}

for signal in INT TERM; do
	begin "$(script "$(status pull)" "$(status aborted '{error: "as asked"}')")"
	kill -s "$signal" "$pid"
	code=0
	wait "$pid" || code=$?
	[[ $code = 1 && ! -s $TMP/out ]] || fail "exit status $code: $(<"$TMP/out")"
	line="weft-move: aborted: weft://a.example still has the region, nothing was lost"
	grep -qx "$line" "$TMP/err" || fail "$(<"$TMP/err")"
	(($(nr_asked take-abort) == 1)) || fail "$(<"$B_LOG")"
done

echo "JSON"
begin "$(script "$(status aborted)" "$(status aborted)")" --json
kill -s INT "$pid"
code=0
wait "$pid" || code=$?
[[ $code = 1 ]] || fail "exit status $code"
jq -se 'map(.result) == [null, "aborted"] and .[1].phase == "aborted"' "$TMP/out" >/dev/null ||
	fail "$(<"$TMP/out")"

echo "too late"
begin "$(script '{"refuse": "EBUSY: the region has been given away"}' "$(status "done")")"
kill -s INT "$pid"
wait "$pid" || fail "exit status $?: $(<"$TMP/err")"
grep -q "^moved " "$TMP/out" || fail "$(<"$TMP/out")"
grep -qx "weft-move: cannot abort the move: the region has been given away; waiting for its end" \
	"$TMP/err" || fail "$(<"$TMP/err")"

echo "several: each is called off, and none begins any more"
kill "$B_PID"
scripted b "$(script "$(status pull)" "$(status aborted)" |
	jq -c '."take-abort" = [."take-abort"[0], ."take-abort"[0]]')"
weft-move weft://a.example/r{1..9} "weft://127.0.0.1:$B_PORT" >"$TMP/out" 2>"$TMP/err" &
pid=$!
wait_for -t 120 asked b '.op == "take-status"'
kill -s INT "$pid"
code=0
wait "$pid" || code=$?
[[ $code = 1 && ! -s $TMP/out ]] || fail "exit status $code: $(<"$TMP/out")"
(($(nr_asked take) <= 8 && $(nr_asked take-abort) >= 1)) || fail "$(<"$B_LOG")"
grep -q "^weft-move: 0 of 9 regions have moved; not: weft://a.example/r1 .* weft://a.example/r9$" \
	"$TMP/err" || fail "$(<"$TMP/err")"
! grep -v "nothing was lost$\|^weft-move: 0 of 9 " "$TMP/err" || fail "it says more"

echo "a donor that does not answer"
begin "$(jq -nc --arg id "$ID" --argjson pull "$(status pull)" '{takes: [{takes: []}],
	take: [{move: $id}], "take-status": [$pull, {silent: true}], "take-abort": [$pull],
	then: {"take-abort": {"take-status": ['"$(status aborted)"']}}}')"
asked_twice() { (($(nr_asked take-status) > 1)); }
wait_for -t 120 asked_twice
kill -s INT "$pid"
code=0
wait "$pid" || code=$?
[[ $code = 1 ]] || fail "exit status $code"
grep -q "nothing was lost$" "$TMP/err" || fail "$(<"$TMP/err")"

echo "before it has begun"
kill "$B_PID"
scripted b '{"takes": [{"silent": true}]}'
weft-move weft://a.example/r "weft://127.0.0.1:$B_PORT" >"$TMP/out" 2>"$TMP/err" &
pid=$!
wait_for -t 120 asked b '.op == "takes"'
kill -s INT "$pid"
code=0
wait "$pid" || code=$?
[[ $code = 1 ]] || fail "exit status $code"
grep -qx "weft-move: given up" "$TMP/err" || fail "$(<"$TMP/err")"
! asked b '.op == "take"' || fail "it has begun: $(<"$B_LOG")"
