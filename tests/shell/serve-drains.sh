# SPDX-License-Identifier: MIT
# A donor that is told to end, with --drain, moves its regions to another one under writers that
# check what they read, and ends once each borrower is there.  Whoever cannot follow is named, and
# the donor stays; two signals end it.
# timeout: 300
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3 qemu-io

start_donor --memory mine=1M --take 256M
B=weft://127.0.0.1:$PORT B_PID=$DONOR_PID
regions=()
for i in {1..8}; do regions+=(--memory "r$i=4M"); done
start_donor "${regions[@]}" --memory stock=1M --drain "$B"
A=weft://127.0.0.1:$PORT A_PID=$DONOR_PID A_LOG=$DONOR_LOG

writers=()
for i in {1..8}; do
	weft attach "$A/r$i" --name "box$i" --socket "$TMP/s$i" || fail "attach"
	python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/s$i" "$TMP/stop$i" "$i" 100 \
		>"$TMP/writer$i" 2>&1 &
	writers+=($!)
done
for i in {1..8}; do wait_for -t 60 test -e "$TMP/stop$i.began"; done
coproc STOCK { exec qemu-io -f raw "nbd://127.0.0.1:$PORT/stock" 2>&1; }
stock=$STOCK_PID
echo "write 0 512" >&"${STOCK[1]}"
# Its first lines have a prompt; then the client is there, and stays.
grep -m1 -q "wrote 512/512" <&"${STOCK[0]}" || fail "a stock client"

echo "one cannot follow"
kill "$A_PID"
wait_for -t 120 grep -q "this donor stays, since not everything is at $B" "$A_LOG"
grep -q "cannot move $A/stock to $B/stock\|the move of $A/stock to $B/stock failed" "$A_LOG" ||
	fail "$(<"$A_LOG")"
grep -q "it is used by who cannot follow: 1 stock NBD client" "$A_LOG" || fail "$(<"$A_LOG")"
grep -qF "8 of 9 regions have moved; not: $A/stock" "$A_LOG" || fail "$(<"$A_LOG")"
! gone "$A_PID" || fail "it has ended"
for i in {1..8}; do
	weft status "box$i" --json | jq -e '.attachments[0] | .state == "ready" and
		(.donors[0].uri | startswith("'"$B"'"))' >/dev/null || fail "$(weft status "box$i")"
done

echo "it has gone"
kill "$stock"
wait "$stock" || :
free() { weft list "$A" --json && weft status --json | jq -e --arg a "${A##*:}" '[.donors[] |
	.attachments[]? | select(.region == "stock" and .sessions > 0)] == []' >/dev/null; }
wait_for -t 60 free
kill "$A_PID"
wait_for -t 120 gone "$A_PID"
wait "$A_PID" || fail "exit status $?: $(<"$A_LOG")"
grep -q "giving back region" "$A_LOG" && fail "$(<"$A_LOG")"
for i in {1..8}; do touch "$TMP/stop$i"; done
for i in "${!writers[@]}"; do
	wait "${writers[i]}" || fail "writer $((i + 1)): $(<"$TMP/writer$((i + 1))")"
	weft status "box$((i + 1))" --json | jq -e '.attachments[0].errors == 0' >/dev/null ||
		fail "$(weft status "box$((i + 1))")"
	weft detach "box$((i + 1))" || fail "detach"
done
weft list "$B" --json | jq -e 'map(.name) | length == 10' >/dev/null || fail "$(weft list "$B")"

echo "a file, too; by the address from which the other one is reached"
mkdir "$TMP/taken"
truncate -s 1M "$TMP/f"
F_PORT=$(free_port)
start_donor --listen "127.0.0.1:$F_PORT" --take "$TMP/taken"
F=weft://127.0.0.1:$F_PORT F_LOG=$DONOR_LOG
start_donor --listen 127.0.0.7:0 --listen 127.0.0.1:0 --file f="$TMP/f" --drain "$F"
kill "$DONOR_PID"
wait_for -t 60 gone "$DONOR_PID"
wait "$DONOR_PID" || fail "exit status $?: $(<"$DONOR_LOG")"
grep -q "region 'f' from weft://127.0.0.1:[0-9]*/f: done" "$F_LOG" || fail "$(<"$F_LOG")"
[[ -f $TMP/taken/f ]] || fail "no file"

echo "two signals"
kill -STOP "$B_PID"
start_donor --memory r=1M --drain "$B"
kill -INT "$DONOR_PID"
wait_for -t 60 grep -q "1 region moves to $B, and then this donor ends" "$DONOR_LOG"
kill -INT "$DONOR_PID"
wait_for -t 60 gone "$DONOR_PID"
wait "$DONOR_PID" || fail "exit status $?: $(<"$DONOR_LOG")"
grep -q "calling off what moves, and ending" "$DONOR_LOG" || fail "$(<"$DONOR_LOG")"
kill -CONT "$B_PID"

echo "nothing to move; and what a donor is not told"
start_donor --take 1M --listen "127.0.0.1:$(free_port)" --drain "$B"
stop_donor || fail "exit status $?"
for wrong in nbd://a weft://a/r weft+unix:/x; do
	code=0
	weft serve --memory r=1M --drain "$wrong" >"$TMP/out" 2>&1 || code=$?
	[[ $code = 2 ]] || fail "--drain $wrong: exit status $code: $(<"$TMP/out")"
done
