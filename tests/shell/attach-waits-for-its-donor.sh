# SPDX-License-Identifier: MIT
# --wait: a donor that is not up yet, or a region that another holds, is waited for; without it that
# is an error at once.  A service manager is told when the attachment is ready, and Ctrl-C and
# SIGTERM give the waiting up.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3 jq

port=$(free_port)
uri=weft://127.0.0.1:$port/r
mkdir -m 700 "$TMP/elsewhere"
refused() { # TEXT ARGUMENT…
	local status=0
	weft attach "$uri" --socket "$TMP/s" "${@:2}" >"$TMP/out" 2>&1 || status=$?
	[[ $status = 1 && $(cat "$TMP/out") = *"$1"* ]] ||
		fail "${*:2}: exit status $status: $(cat "$TMP/out")"
	[[ ! -e $TMP/s && -z $(compgen -G "$WEFT_RUN_DIR/attach-*") ]] ||
		fail "left behind: $(ls "$WEFT_RUN_DIR")"
}

echo "no donor: at once, or when the time is over"
refused "Connection refused; is weft serve running there?"
refused "Connection refused; is weft serve running there?" --dead-timeout 0
SECONDS=0
refused "is weft serve running there?; trying again for up to 2 s" --wait 2
((SECONDS >= 2)) || fail "it did not wait"

echo "the donor comes"
: >"$TMP/out" # nothing of an earlier one
weft attach "$uri" --socket "$TMP/s" --wait 0 >"$TMP/out" 2>&1 &
attach=$!
wait_for grep -q "running there?; trying again$" "$TMP/out"
start_donor --listen "127.0.0.1:$port" --memory r=1M
wait "$attach" || fail "$(cat "$TMP/out")"
grep -q "'r' is attached" "$TMP/out" || fail "$(cat "$TMP/out")"
[[ $(grep -c "trying again" "$TMP/out") = 1 ]] ||
	fail "the same reason is told again and again: $(cat "$TMP/out")"

echo "another has it: until that one goes"
: >"$TMP/out" # nothing of an earlier one
weft attach "$uri" --socket "$TMP/other" --name other --wait 60 >"$TMP/out" 2>&1 &
attach=$!
wait_for grep -q "is held by .*; trying again for up to 60 s$" "$TMP/out"
weft detach r >/dev/null
wait "$attach" || fail "$(cat "$TMP/out")"

echo "another had it, and is silent: for how long yet is no new reason each second"
kill -KILL "$(weft status other --json | jq '.attachments[0].pid')"
: >"$TMP/out" # nothing of an earlier one
status=0
WEFT_RUN_DIR=$TMP/elsewhere weft attach "$uri" --socket "$TMP/s" --name late \
	--wait 4 >"$TMP/out" 2>&1 || status=$?
[[ $status = 1 && $(grep -c "trying again" "$TMP/out") -le 2 ]] ||
	fail "exit status $status: $(cat "$TMP/out")"
weft attach "$uri" --socket "$TMP/other" --name other >/dev/null || fail "other is not taken over"

status=0
weft attach "$uri" --socket "$TMP/s" --name reader --read-only >"$TMP/out" 2>&1 || status=$?
[[ $status = 1 &&
	$(cat "$TMP/out") = *"; to read beside a writer, use --shared instead of --read-only" ]] ||
		fail "$(cat "$TMP/out")"
weft detach other >/dev/null

echo "what cannot come is an error at once"
uri=weft://127.0.0.1:$port/nothing
refused "there is no region 'nothing'" --wait 0
uri=weft://127.0.0.1:$port/r

echo "a service manager"
cat >"$TMP/notified.py" <<'PY'
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode(), flush=True)
PY
python3 "$TMP/notified.py" "$TMP/notify" >"$TMP/notified" &
wait_for test -S "$TMP/notify"
: >"$TMP/out" # nothing of an earlier one
NOTIFY_SOCKET=$TMP/notify weft attach "$uri" --socket "$TMP/s" --foreground >"$TMP/out" 2>&1 &
bridge=$!
wait_for grep -qx "READY=1" "$TMP/notified"
grep -qx ready "$TMP/out" || fail "$(cat "$TMP/out")"
kill -TERM "$bridge"
wait "$bridge" || fail "exit status $?: $(cat "$TMP/out")"
wait_for grep -qx "STOPPING=1" "$TMP/notified"

echo "given up"
stop_donor || fail "the donor: $?"
: >"$TMP/out" # nothing of an earlier one
NOTIFY_SOCKET=$TMP/notify weft attach "$uri" --socket "$TMP/s" --foreground \
	--wait 0 >"$TMP/out" 2>&1 &
bridge=$!
wait_for grep -q "trying again" "$TMP/out"
kill -TERM "$bridge"
status=0
wait "$bridge" || status=$?
[[ $status = 1 && $(cat "$TMP/out") = *"given up: cannot attach"* ]] ||
	fail "exit status $status: $(cat "$TMP/out")"
[[ $(grep -cx "READY=1" "$TMP/notified") = 1 ]] || fail "ready without a donor"
: >"$TMP/out" # nothing of an earlier one
weft attach "$uri" --socket "$TMP/s" --wait 0 >"$TMP/out" 2>&1 &
attach=$!
wait_for grep -q "trying again" "$TMP/out"
kill -INT "$attach" 2>/dev/null || :
kill -TERM "$attach"
wait "$attach" || :
nothing_left() {
	[[ -z $(compgen -G "$WEFT_RUN_DIR/attach-*") && ! -e $TMP/s ]]
}
wait_for -t 20 nothing_left
