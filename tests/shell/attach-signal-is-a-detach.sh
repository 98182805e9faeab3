# SPDX-License-Identifier: MIT
# A signal to a bridge is a detach without force: with users it flushes, says so and stays, and it
# ends by itself when the last user goes.  SIGHUP ends nothing.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool jq python3 nbdcopy

start_donor --memory r=8M
attach() { # ARGUMENT…
	weft attach "$URI" "$@" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
	pid=$(weft status r --json | jq '.attachments[0].pid')
	log=$WEFT_RUN_DIR/attach-r.log
}
said() { # TEXT
	grep -qF "$1" "$log"
}

echo "without users it ends, and what was written is at the donor"
for signal in TERM INT; do
	attach --mount "$TMP/f"
	random_file "$TMP/random" 65536
	dd if="$TMP/random" of="$TMP/f" conv=notrunc status=none
	kill -s "$signal" "$pid"
	wait_for gone "$pid"
	[[ ! -e $TMP/f && -z $(compgen -G "$WEFT_RUN_DIR/attach-r*") ]] ||
		fail "left behind: $(ls "$TMP" "$WEFT_RUN_DIR")"
	attach --mount "$TMP/f"
	cmp -n 65536 "$TMP/random" "$TMP/f" || fail "SIG$signal lost what was written"
	weft detach r >/dev/null
done

echo "SIGHUP and the like end nothing"
attach --mount "$TMP/f"
kill -s HUP "$pid" && kill -s USR1 "$pid" && kill -s USR2 "$pid" && kill -s PIPE "$pid"
cmp -n 65536 "$TMP/random" "$TMP/f" || fail "a SIGHUP ended it"

echo "with a page that is mapped and dirty it stays, writes that back, and says who uses it"
cat >"$TMP/map.py" <<'PY'
import mmap, sys, time
with open(sys.argv[1], "r+b") as f:
    m = mmap.mmap(f.fileno(), 1 << 20)
    m[4096:8192] = b"m" * 4096
    print("mapped", flush=True)
    sys.stdin.readline()
    m[8192:12288] = b"n" * 4096
    print("again", flush=True)
    sys.stdin.readline()
PY
coproc python3 "$TMP/map.py" "$TMP/f"
user=$COPROC_PID
read -r -u "${COPROC[0]}" _
kill -TERM "$pid"
wait_for said "what the kernel cached of 'r' is at its donor"
wait_for said \
	"'r' was told to end (SIGTERM) and goes on until it can: 'r' is in use: pid $user (python3) has it"
[[ $(weft status r) = *"told to end (SIGTERM); it ends when nobody uses it any more"* ]] ||
	fail "$(weft status r)"
echo >&"${COPROC[1]}"
read -r -u "${COPROC[0]}" _

echo "again, and killed after that: what was flushed is not lost"
kill -INT "$pid"
wait_for said "(SIGINT)"
flushed_twice() {
	[[ $(grep -cF "what the kernel cached of 'r' is at its donor" "$log") = 2 ]]
}
wait_for flushed_twice
echo >&"${COPROC[1]}"
kill -KILL "$pid"
wait "$user" || :
wait_for gone "$pid"
attach --mount "$TMP/f"
[[ $(dd if="$TMP/f" bs=4096 skip=1 count=2 status=none | tr -d '\n' | fold -w 4096 | cut -c 1-3) = \
	$'mmm\nnnn' ]] || fail "the flushed pages are lost"

echo "it ends by itself when the last user goes"
exec 9<"$TMP/f"
kill -TERM "$pid"
wait_for said "pid $$ (bash) has it open"
exec 9<&-
wait_for gone "$pid"
[[ ! -e $TMP/f && -z $(compgen -G "$WEFT_RUN_DIR/attach-r*") ]] ||
	fail "left behind: $(ls "$TMP" "$WEFT_RUN_DIR")"

echo "a client of its socket is a user"
weft attach "$URI" --socket "$TMP/s" --foreground >"$TMP/out" 2>&1 &
bridge=$!
ready() {
	[[ $(weft status r 2>/dev/null) = *ready* ]]
}
wait_for ready
need_tool socat
coproc socat STDIO "UNIX-CONNECT:$TMP/s"
client=$COPROC_PID
connected() {
	[[ $(weft status r) = *"1 client"* ]]
}
wait_for connected
pid=$(weft status r --json | jq '.attachments[0].pid')
kill -TERM "$pid"
told() {
	grep -qF "(socat) is connected to the socket" "$TMP/out"
}
wait_for told
connected || fail "the client was sent away"
kill "$client"
wait_for gone "$pid"
wait "$bridge" || fail "exit status $?"

echo "a cache that cannot be written back is not given up; what is stale and has nothing to lose ends"
weft attach "$URI" --socket "$TMP/s" --cache 4M --dead-timeout 60 \
	--push-interval 60 >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
pid=$(weft status r --json | jq '.attachments[0].pid')
nbdcopy "$TMP/random" "nbd+unix:///?socket=$TMP/s"
port=${PORT:?}
stop_donor || fail "the donor: $?"
kill -TERM "$pid"
wait_for said \
	"its cache holds what is not at the donor, and the donor does not answer; to save that: weft rescue r FILE"
[[ -d /proc/$pid ]] || fail "it gave its cache up"
weft detach --force r >/dev/null 2>&1 || :
start_donor --listen "127.0.0.1:$port" --memory r=8M
attach --mount "$TMP/f"
stop_donor || fail "the donor: $?"
start_donor --listen "127.0.0.1:$port" --memory r=8M
is_stale() { [[ $(weft status r) = *stale* ]]; }
wait_for is_stale
kill -TERM "$pid"
wait_for gone "$pid"
[[ ! -e $TMP/f ]] || fail "left behind"
