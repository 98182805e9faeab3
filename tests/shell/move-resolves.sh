# SPDX-License-Identifier: MIT
# weft move --resolve, where two donors cannot ask each other which of them has a region: it brings
# each the other's word, and a borrower that writes all the time goes on, with every write that was
# answered.  What cannot be decided is said, and nobody is let in.
# timeout: 300
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3

# giver; taker [OPTION…]: a donor at its port; $STEP: where the taker is killed.
giver() {
	start_donor --listen "127.0.0.1:$A_PORT" --memory r=4M --keep 60
	A_PID=$DONOR_PID
}
taker() {
	WEFT_STEP=${STEP:+$STEP=kill} start_donor --listen "127.0.0.1:$B_PORT" --take 64M "$@"
	B_PID=$DONOR_PID
}
# relay: the taker reaches the giver by way of it alone.
relay() {
	local at
	at=$(free_port)
	python3 "$WEFT_SRC/tests/support/relay.py" "$at" "$A_PORT" >"$TMP/relay" 2>&1 &
	RELAY_PID=$!
	FROM=weft://127.0.0.1:$at/r
	wait_for weft list "${FROM%/r}"
}
end() {
	kill "$@" 2>/dev/null || :
	for pid in "$@"; do wait "$pid" || :; done
}

# begin NAME: both donors, and a bridge that is written.
begin() {
	echo "== $1"
	NAME=$1 A_PORT=$(free_port) B_PORT=$(free_port)
	A=weft://127.0.0.1:$A_PORT B=weft://127.0.0.1:$B_PORT
	giver
	relay
	weft attach "$A/r" --name "$NAME" --socket "$TMP/s-$NAME" --foreground \
		--dead-timeout 120 >"$TMP/bridge-$NAME" 2>&1 &
	BRIDGE_PID=$!
	wait_for -t 60 test -S "$TMP/s-$NAME"
	python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/s-$NAME" "$TMP/stop-$NAME" 1 \
		500 >"$TMP/writer-$NAME" 2>&1 &
	WRITER_PID=$!
	wait_for -t 60 test -e "$TMP/stop-$NAME.began"
}
# dies STEP: the region moves, and the taker is killed there; the way between the donors is cut.
dies() {
	STEP=$1 taker "${@:2}"
	timeout 60 weft move "$FROM" "$B" >"$TMP/move" 2>&1 &
	local mover=$!
	wait_for -t 60 gone "$B_PID"
	end "$RELAY_PID" "$mover"
}
# finish URI: the writer has had no error, and its bridge is there.
finish() {
	wait_for -t 60 is_at "$1"
	touch "$TMP/stop-$NAME"
	wait "$WRITER_PID" || fail "$NAME: $(cat "$TMP/writer-$NAME" "$TMP/bridge-$NAME")"
	weft detach "$NAME" || fail "$NAME: detach"
	wait "$BRIDGE_PID" || :
	end "$A_PID" "$B_PID"
}
is_at() {
	weft status "$NAME" --json |
		jq -e ".attachments[0] | .state == \"ready\" and (.donors[0].uri |
			startswith(\"$1\"))" >/dev/null
}
# resolves CODE TEXT…: what it says.
resolves() {
	local code=0 text
	weft move --resolve "$A/r" "$B" >"$TMP/out" 2>"$TMP/err" || code=$?
	[[ $code = "$1" ]] || fail "$NAME: exit status $code: $(cat "$TMP/out" "$TMP/err")"
	for text in "${@:2}"; do
		grep -qF "$text" "$TMP/out" "$TMP/err" ||
			fail "$NAME: not '$text': $(cat "$TMP/out" "$TMP/err")"
	done
}
is() { # WHO WORD: what the donor says that it has.
	weft move --resolve "$A/r" "$B" --json 2>/dev/null | jq -e ".${1}_is == \"$2\"" >/dev/null
}

begin given
dies take-told
resolves 1 "weft-move: $A gave region 'r' away, to $B/r" "no donor at $B: connection refused" \
	"$A gave the region away, and only $B can say whether it serves it."
STEP='' taker
resolves 0 "$B was told that it has the region" "$B/r is served by $B"
finish "$B"

begin served
dies take-owner
STEP='' taker
resolves 0 "$A gave region 'r' away, to $B/r" "$A has let go of its copy" "$B/r is served by $B"
resolves 0 "$A gave region 'r' away, to $B/r" "$B/r is served by $B"
finish "$B"

begin lost
dies take-told --keep 0
STEP='' taker
resolves 0 "$B does not serve region 'r'" "$A has taken the region back" "$A/r is served by $A"
# It moves again, as any region does.
relay
timeout 60 weft move "$FROM" "$B" >"$TMP/move" 2>&1 || fail "$(<"$TMP/move")"
end "$RELAY_PID"
resolves 0 "$B/r is served by $B"
finish "$B"

# On two machines: neither sees the other's notes.
begin never
mkdir -m 700 "$TMP/takers"
cleanup_add "WEFT_RUN_DIR=$TMP/takers our_processes | xargs -r kill -KILL"
WEFT_RUN_DIR=$TMP/takers dies take-copied
kill -KILL "$A_PID"
wait "$A_PID" || :
WEFT_RUN_DIR=$TMP/takers STEP='' taker
resolves 1 "$B has a copy, and only $A can say whether it gave the region away."
giver
resolves 0 "$B was told that it was not given the region" "$A/r is served by $A"
wait_for -t 60 is to nothing
finish "$A"

echo "== a giver whose disk is full for a while gives the region when it is not"
NAME=full A_PORT=$(free_port) B_PORT=$(free_port)
A=weft://127.0.0.1:$A_PORT B=weft://127.0.0.1:$B_PORT
start_donor --listen "127.0.0.1:$A_PORT" --memory q=1M --memory r=1M
A_PID=$DONOR_PID A_LOG=$DONOR_LOG
STEP='' taker
weft move "$A/q" "$B" >"$TMP/move" 2>&1 || fail "$(<"$TMP/move")"
for notes in "$WEFT_RUN_DIR"/moves-*; do
	! jq -e '.moves[0] | .region == "q" and .is == "gone"' "$notes" >/dev/null || break
done
mkdir "$notes.new"
timeout 100 weft move "$A/r" "$B" >"$TMP/move" 2>&1 &
mover=$!
wait_for -t 60 grep -q "cannot note in $notes" "$A_LOG"
resolves 1 "cannot say whether its note that it gave the region away reached its disk"
rmdir "$notes.new"
wait "$mover" || fail "$(<"$TMP/move")"
resolves 0 "$B/r is served by $B"
end "$A_PID" "$B_PID"

echo "== a note that does not reach the disk is no word"
begin unnoted
WEFT_STEP=take-told=stop start_donor --listen "127.0.0.1:$B_PORT" --take 64M
B_PID=$DONOR_PID
timeout 60 weft move "$FROM" "$B" >"$TMP/move" 2>&1 &
mover=$!
stopped() { grep -q '^State:.T' "/proc/$B_PID/status"; }
wait_for -t 60 stopped
notes=$(grep -l '"prepared"' "$WEFT_RUN_DIR"/moves-*)
mkdir "$notes.new"
kill -CONT "$B_PID"
wait_for -t 60 grep -q "cannot be served: cannot note in $notes" "$DONOR_LOG"
resolves 1 "$A gave region 'r' away, to $B/r" "$B is ready to serve region 'r'"
rmdir "$notes.new"
wait "$mover" || fail "$(<"$TMP/move")"
resolves 0 "$B/r is served by $B"
end "$RELAY_PID"
finish "$B"

echo "== a donor that knows nothing of the move is not asked for a promise"
begin other
dies take-told
mkdir "$TMP/other"
WEFT_RUN_DIR=$TMP/other STEP='' taker
resolves 1 "and $B has no note of that move"
weft list "$A" | grep -q "moved to" || fail "$(weft list "$A")"
end "$B_PID"
STEP='' taker
resolves 0 "$B/r is served by $B"
finish "$B"

echo "== a taker that is gone for good, as an operator says"
begin gone
dies take-told
epoch() { weft list "$1" --json | jq -r '.[] | select(.name == "r") | .epoch'; }
# gone CODE TEXT FROM TO: what is said.
gone_for_good() {
	local code=0
	weft move --resolve --taker-is-gone "$3" "$4" >"$TMP/out" 2>"$TMP/err" || code=$?
	[[ $code = "$1" ]] || fail "exit status $code: $(cat "$TMP/out" "$TMP/err")"
	grep -qF "$2" "$TMP/out" "$TMP/err" || fail "not '$2': $(cat "$TMP/out" "$TMP/err")"
}
is_stale() {
	weft status "$NAME" --json | jq -e '.attachments[0].state == "stale"' >/dev/null
}
was=$(jq -r '.moves[0].epoch' "$(grep -l '"given"' "$WEFT_RUN_DIR"/moves-* | head -n 1)")
resolves 1 "If $B is gone for good, say so with --taker-is-gone"
gone_for_good 1 "and not to weft://127.0.0.1:1/r" "$A/r" weft://127.0.0.1:1
gone_for_good 0 "under a new epoch: whoever used it is told" "$A/r" "$B"
grep -qF "$A/r is served by $A" "$TMP/out" || fail "$(<"$TMP/out")"
[[ $(epoch "$A") != "$was" ]] || fail "the same epoch: $was"
grep -q "an operator says that the donor to which it was given is gone for good" "$DONOR_LOG" \
	"$TMP"/donor.* || fail "the log of $A"
# Nobody goes on with contents that may lack something.
wait_for -t 60 is_stale
! wait "$WRITER_PID" || fail "the writer has no error: $(<"$TMP/writer-$NAME")"
! weft detach "$NAME" >"$TMP/out" 2>&1 || fail "$NAME: nothing was lost"
grep -q "but the attachment was lost" "$TMP/out" || fail "$(<"$TMP/out")"
wait "$BRIDGE_PID" || :
# It was not gone: it hears that it was never given the region.
STEP='' taker
gone_nothing() { is to nothing && ! weft list "$B" 2>/dev/null | grep -q '^r '; }
wait_for -t 60 gone_nothing
gone_for_good 0 "$A/r is served by $A" "$A/r" "$B"
end "$A_PID" "$B_PID"

echo "== after the word that it was given, the word that the giver is gone"
NAME=later A_PORT=$(free_port) B_PORT=$(free_port)
A=weft://127.0.0.1:$A_PORT B=weft://127.0.0.1:$B_PORT
giver
relay
STEP=take-told taker
timeout 60 weft move --post-copy "$FROM" "$B" >"$TMP/move" 2>&1 &
mover=$!
wait_for -t 60 gone "$B_PID"
end "$RELAY_PID" "$mover"
STEP='' taker
weft move --resolve "$A/r" "$B" >"$TMP/out" 2>&1 || :
grep -qF "$B was told that it has the region" "$TMP/out" || fail "$(<"$TMP/out")"
wait_for -t 60 is to filling
end "$A_PID"
is_lost() {
	weft move --resolve --giver-is-gone "$FROM" "$B" >"$TMP/out" 2>&1 || :
	grep -q "is gone for good, as somebody said" "$DONOR_LOG"
}
wait_for -t 60 is_lost
end "$B_PID"

echo "== where nothing is in doubt"
start_donor --memory q=1M
A_PORT=$PORT A=weft://127.0.0.1:$PORT
start_donor --take 1M --listen 127.0.0.1:0 --memory x=1M
B=weft://127.0.0.1:$PORT
NAME=none
resolves 1 "neither has the region"
code=0
weft move --resolve "$A/q" "$B" --json >"$TMP/json" || code=$?
[[ $code = 0 ]] || fail "exit status $code"
jq -e ".owner == \"$A/q\" and .from_is == \"owner\" and .to_is == \"nothing\" and .done == []" \
	"$TMP/json" >/dev/null || fail "$(<"$TMP/json")"
schema=$WEFT_SRC/tests/support/status-schema.jq
wrong=$(jq -s . "$TMP/json" | jq -r --arg keys no --arg of resolutions -f "$schema") || fail "jq"
[[ ! $wrong ]] || fail "$wrong"
