# SPDX-License-Identifier: MIT
# A region goes to another donor and comes back, again and again: what has left counts no more
# towards --take.  When a donor's machine restarts, a region of its command line that had come back
# is made anew, and one that is elsewhere, or was only about to come back, is not.  It
# does not start where it cannot lend all that came.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

ports=("$(free_port)" "$(free_port)" "$(free_port)")
listen=(--listen "127.0.0.1:${ports[0]}" --listen "127.0.0.1:${ports[2]}")
from=weft://127.0.0.1:${ports[0]} to=weft://127.0.0.1:${ports[1]}
# Without a holder a kill is what a restart of the machine is.
giver() {
	start_donor --memory r=8M --take 8M --keep 0 "${listen[@]}"
	giver=$DONOR_PID giver_log=$DONOR_LOG
}
move() { # FROM TO
	weft move "$1/r" "$2" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out" "$giver_log")"
}
lends() { weft list "$from" | grep '^r ' | grep -vq 'moved to'; }
restart() {
	kill -KILL "$giver" 2>/dev/null || :
	wait "$giver" || :
	giver
}
giver
start_donor --take 8M --listen "127.0.0.1:${ports[1]}"
for ((i = 0; i < 2; i++)); do
	move "$from" "$to"
	move "$to" "$from"
done

echo "it had come back"
restart
grep -q "region 'r', which came from $to/r, is lost" "$giver_log" || fail "$(<"$giver_log")"
lends || fail "$(weft list "$from")"

echo "it is elsewhere, and was about to come back"
move "$from" "$to"
kill -KILL "$giver"
wait "$giver" || :
WEFT_STEP=take-begun=kill giver
weft-move "$to/r" "$from" >"$TMP/out" 2>&1 &
mover=$!
wait_for -t 60 gone "$giver"
kill -KILL "$mover"
wait "$mover" || :
# Whichever of its places it is told first, its notes are the same.
listen=("${listen[@]:2}" "${listen[@]::2}")
restart
grep -q "region 'r' has moved to $to/r, and is not lent here" "$giver_log" ||
	fail "$(<"$giver_log")"
! lends || fail "$(weft list "$from")"

echo "more came than a donor can lend: it does not leave some of them behind"
kill -KILL "$giver"
wait "$giver" || :
notes=$(grep -l '"refused"' "$WEFT_RUN_DIR"/moves-*)
jq '.moves = [range(256) as $i | .moves[0] | .is = "taken" | .region = "came-\($i)"]' \
	"$notes" >"$TMP/notes"
cp "$TMP/notes" "$notes"
! timeout 60 weft-serve --memory r=8M --take 8M --keep 0 "${listen[@]}" >"$TMP/log" 2>&1 ||
	fail "$(<"$TMP/log")"
grep -q "came from other donors there are more than 256" "$TMP/log" || fail "$(<"$TMP/log")"
