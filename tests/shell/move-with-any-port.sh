# SPDX-License-Identifier: MIT
# A donor that listens at any port is given back its memory after a crash, but its notes of moves
# are named by the port that it had: it lends nothing of which those say that it moves, or came,
# and says how to start it.  So it is with one that listened elsewhere first.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

# crash PID
crash() {
	kill -KILL "$1" 2>/dev/null || :
	wait "$1" || :
}
# refused PORT OPTION…: the donor that had the port is not started at another one, but there it is.
refused() {
	local place=127.0.0.1:$1
	shift
	! timeout 60 weft-serve --listen 127.0.0.1:0 "$@" >"$TMP/log" 2>&1 || fail "$(<"$TMP/log")"
	grep -q "region 'r' is kept.*start that donor with --listen $place" "$TMP/log" ||
		fail "$(<"$TMP/log")"
	start_donor --listen "$place" "$@"
}

start_donor --memory r=1M --memory other=1M
a=$DONOR_PID a_port=$PORT from=weft://127.0.0.1:$PORT/r
WEFT_STEP=take-told=stop start_donor --take 4M --memory mine=1M
b=$DONOR_PID b_port=$PORT to=weft://127.0.0.1:$PORT
weft move "$from" "$to" >"$TMP/move" 2>&1 &
mover=$!
stopped() { grep -q '^State:.T' "/proc/$b/status"; }
wait_for -t 60 stopped
crash "$mover"
crash "$a"

echo "what was given away is not lent again"
refused "$a_port" --memory r=1M --memory other=1M
weft list "$from" | grep "^r .*moved to $to/r" || fail "$(weft list "$from")"
a=$DONOR_PID

echo "what came is not left behind"
crash "$b"
refused "$b_port" --take 4M --memory mine=1M
served() { weft list "$to" | grep '^r ' | grep -vq 'moved to'; }
wait_for -t 60 served
grep -q "^recovered region 'r'" "$DONOR_LOG" || fail "$(<"$DONOR_LOG")"

echo "a donor that has nothing to do with it starts"
crash "$a"
start_donor --memory another=1M
a=$DONOR_PID
crash "$a"
crash "$b"

echo "what was given away is not lent again by one that listens elsewhere first, too"
second=$(free_port)
start_donor --listen "127.0.0.1:$second" --memory early=1M
a=$DONOR_PID
start_donor --take 8M --memory mine=1M
b=$DONOR_PID
weft move "weft://127.0.0.1:$second/early" "weft://127.0.0.1:$PORT" >"$TMP/move" 2>&1 ||
	fail "$(<"$TMP/move")"
kill "$a" "$b"
wait "$a" "$b" || :
start_donor --memory s=1M
a=$DONOR_PID a_port=$PORT
WEFT_STEP=take-told=stop start_donor --take 4M --memory mine=1M
b=$DONOR_PID to=weft://127.0.0.1:$PORT
weft move "weft://127.0.0.1:$a_port/s" "$to" >"$TMP/move" 2>&1 &
mover=$!
wait_for -t 60 stopped
crash "$mover"
crash "$a"
both=(--listen "127.0.0.1:$second" --listen "127.0.0.1:$a_port" --memory s=1M)
! timeout 60 weft-serve "${both[@]}" >"$TMP/log" 2>&1 || fail "$(<"$TMP/log")"
grep -q "region 's' is kept.*start that donor with --listen 127.0.0.1:$a_port" "$TMP/log" ||
	fail "$(<"$TMP/log")"
start_donor --listen "127.0.0.1:$a_port" --memory s=1M
a=$DONOR_PID
weft list "weft://127.0.0.1:$a_port/" | grep "^s .*moved to $to/s" ||
	fail "$(weft list "weft://127.0.0.1:$a_port/")"
kill -CONT "$b"
kill "$a" "$b"
wait "$a" "$b" || :

echo "nor by one that does not listen any more where that was noted"
a_port=$(free_port)
both=(--listen "127.0.0.1:$a_port" --listen "127.0.0.1:$second")
start_donor "${both[@]}" --memory u=1M
a=$DONOR_PID
WEFT_STEP=take-told=stop start_donor --take 4M --memory mine=1M
b=$DONOR_PID to=weft://127.0.0.1:$PORT
weft move "weft://127.0.0.1:$a_port/u" "$to" >"$TMP/move" 2>&1 &
mover=$!
wait_for -t 60 stopped
crash "$mover"
crash "$a"
! timeout 60 weft-serve --listen "127.0.0.1:$a_port" --memory u=1M >"$TMP/log" 2>&1 ||
	fail "$(<"$TMP/log")"
grep -q "region 'u' is kept from a donor before this one" "$TMP/log" || fail "$(<"$TMP/log")"
start_donor "${both[@]}" --memory u=1M
a=$DONOR_PID
weft list "weft://127.0.0.1:$a_port/" | grep "^u .*moved to $to/u" ||
	fail "$(weft list "weft://127.0.0.1:$a_port/")"
kill -CONT "$b"
kill "$a" "$b"
wait "$a" "$b" || :

echo "what another donor of this machine was about to take is lent again"
start_donor --memory t=1M
a=$DONOR_PID a_port=$PORT
WEFT_STEP=take-prepared=stop start_donor --take 4M --memory mine=1M
b=$DONOR_PID
weft move "weft://127.0.0.1:$a_port/t" "weft://127.0.0.1:$PORT" >"$TMP/move" 2>&1 &
mover=$!
wait_for -t 60 stopped
crash "$mover"
crash "$a"
start_donor --listen "127.0.0.1:$a_port" --memory t=1M
grep -q "^recovered region 't'" "$DONOR_LOG" || fail "$(<"$DONOR_LOG")"
crash "$b"
