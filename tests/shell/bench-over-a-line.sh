# SPDX-License-Identifier: MIT
# weft bench --line: memory lent at the far end of a line, which is as long as it was told to be;
# nothing of it is left.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool jq xmllint

quick=(--time 1 --rounds 2 --sizes 4K --depths 1 --span 4M)
export TMPDIR=$TMP
weft bench --line delay=3ms,seed=5 "${quick[@]}" --paths direct,socket --json="$TMP/run.json" \
	--html "$TMP/run.html" >"$TMP/table" 2>"$TMP/err" ||
		fail "exit status $?: $(cat "$TMP/err")"
jq -e '.line.options == "delay=3ms,seed=5" and .line.figures.seed == 5 and
	.line.figures.delay_ns == 3000000 and .line.figures.near_to_far.packets > 20 and .region_bytes == 4194304 and
	[.paths[].path] == ["tcp direct", "tcp socket"] and
	all(.cells[]; .latency_us.p50 > 5900 and .wire_bytes_per_GB > 1e9) and
	all(.paths[]; .network.interface == "line0")' "$TMP/run.json" >/dev/null || fail "$(cat "$TMP/run.json")"
grep -q '^over a line made for it: delay=3ms,seed=5; ' "$TMP/table" || fail "$(cat "$TMP/table")"
grep -q 'over a line made for it' "$TMP/run.html" || fail "the page does not tell"
xmllint --noout "$TMP/run.html" || fail "the page is not well-formed"

ended() { [[ -z $(our_processes) ]]; }
wait_for ended
! compgen -G "$TMP/weft-bench.*" >/dev/null || fail "left: $(ls "$TMP"/weft-bench.*)"

echo "== Ctrl-C ends it and all that it started"
rm "$TMP/err"
weft bench --line delay=3ms --time 60 --paths direct >"$TMP/out" 2>"$TMP/err" &
pid=$!
wait_for -t 60 grep -q 'round 1' "$TMP/err"
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
[[ $status = 130 ]] || fail "exit status $status: $(cat "$TMP/err")"
wait_for ended

echo "== what cannot be is said"
! weft bench --line delay=3 "${quick[@]}" >"$TMP/out" 2>"$TMP/err" || fail "a line without a unit"
grep -q '^weft-bench: there is no line: weft-line: --delay wants a time' "$TMP/err" ||
	fail "$(cat "$TMP/err")"
wait_for ended
