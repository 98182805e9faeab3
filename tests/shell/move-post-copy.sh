# SPDX-License-Identifier: MIT
# weft move --post-copy: the taker serves at once, and gets what it lacks from the giver, what
# somebody waits for first.  It goes on where either donor is killed and starts again; where the
# giver's bytes are lost midway there are errors, and no zeros.
# timeout: 300
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3 nbdcopy

SIZE=16M
random_file "$TMP/contents" 16M
# donors [GIVER'S OPTION…]: the giver has the contents.
donors() {
	A_PORT=$(free_port) B_PORT=$(free_port)
	A=weft://127.0.0.1:$A_PORT B=weft://127.0.0.1:$B_PORT
	giver "$@"
	nbdcopy "$TMP/contents" "nbd://127.0.0.1:$A_PORT/r"
	taker
}
giver() {
	WEFT_STEP='' start_donor --listen "127.0.0.1:$A_PORT" --memory "r=$SIZE" --take 1G \
		--keep 60 "$@"
	A_PID=$DONOR_PID
}
taker() {
	start_donor --listen "127.0.0.1:$B_PORT" --take 1G --keep 60
	B_PID=$DONOR_PID B_LOG=$DONOR_LOG
}
killed() { # PID
	kill -KILL "$1"
	wait "$1" || :
}
# begin [RATE]: a slow post-copy move, which has begun to fill.
begin() {
	rm -f "$TMP/moved"
	timeout 120 weft move --post-copy --bandwidth "${1-3M}" "$A/r" "$B" --json >"$TMP/moved" \
		2>"$TMP/err" &
	MOVER=$!
	wait_for -t 60 grep -qs '"phase": *"fill"' "$TMP/moved"
}
# same: what B has is what A had.
same() {
	nbdcopy "nbd://127.0.0.1:$B_PORT/r" "$TMP/got"
	cmp "$TMP/contents" "$TMP/got"
}
# only_errors [WITHIN]: what B has is what A had, or an error, and no zeros; all of it in so many
# seconds, so that nothing that is lost is waited for.
only_errors() {
	timeout "${1-60}" python3 - "$B_PORT" "$TMP/contents" <<'PY' || fail "$(<"$B_LOG")"
import errno, socket, struct, sys
contents = open(sys.argv[2], "rb").read()
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rwb")
f.read(18)
f.write(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 1) + b"r")
f.flush()
size, flags = struct.unpack(">QH", f.read(10))
good = bad = 0
for off in range(0, size, 65536):
    f.write(struct.pack(">IHHQQI", 0x25609513, 0, 0, off, off, 65536))
    f.flush()
    magic, error, handle = struct.unpack(">IIQ", f.read(16))
    if error:
        assert error == errno.EIO, error
        bad += 1
    else:
        assert f.read(65536) == contents[off:off + 65536], off
        good += 1
print(good, "chunks are there, and", bad, "are errors")
assert good > 0 and bad > 0
PY
}
over() { kill "$A_PID" "$B_PID" && wait "$A_PID" "$B_PID" || :; }

echo "== what is read is there at once, and the rest comes"
donors
weft attach "$A/r" --name box --socket "$TMP/s" --foreground >"$TMP/bridge" 2>&1 &
bridge=$!
wait_for -t 60 test -S "$TMP/s"
begin 1M
grep -q "as long as that is not over, a loss of $A loses what has not been copied" "$TMP/err" ||
	fail "$(<"$TMP/err")"
python3 - "$TMP/s" "$TMP/contents" <<'PY' || fail "$(cat "$TMP/bridge" "$B_LOG")"
import sys
sys.path.insert(0, __import__("os").environ["WEFT_SRC"] + "/tests/support")
from nbdclient import BLOCK, Server
server = Server(sys.argv[1], 60)
contents = open(sys.argv[2], "rb").read()
for block in range(server.size // BLOCK - 1, 0, -997):
    assert server.read(block) == contents[block * BLOCK:(block + 1) * BLOCK], block
server.write(3000, b"w" * BLOCK)
assert server.read(3000) == b"w" * BLOCK
PY
weft move --resolve "$A/r" "$B" --json | jq -e '.to_is == "filling" and .from_is == "given" and
	.done == []' >/dev/null || fail "$(weft move --resolve "$A/r" "$B" --json)"
! weft move "$B/r" "$A/s" >"$TMP/out" 2>&1 || fail "it moved on"
grep -q "still on its way" "$TMP/out" || fail "$(<"$TMP/out")"
wait "$MOVER" || fail "$(cat "$TMP/moved" "$TMP/err")"
! weft list "$A" | grep -q '^r ' || fail "$(weft list "$A")"
weft detach box || fail "detach"
wait "$bridge" || :
printf 'w%.0s' {1..4096} | dd of="$TMP/contents" bs=4096 seek=3000 conv=notrunc status=none
same || fail "other bytes"
over

echo "== the taker is killed, and goes on"
donors
begin
killed "$B_PID"
taker
wait "$MOVER" || :
gone_there() { ! weft list "$A" | grep -q '^r '; }
wait_for -t 100 gone_there
same || fail "other bytes"
over

echo "== the giver is killed, and its memory is kept"
donors
begin
killed "$A_PID"
giver
wait "$MOVER" || fail "$(cat "$TMP/moved" "$TMP/err")"
same || fail "other bytes"
over

echo "== a region of one piece, whose first READ is lost"
SIZE=64K
truncate -s 64K "$TMP/contents"
WEFT_STEP=take-serves=stop donors
timeout 120 weft move --post-copy "$A/r" "$B" >"$TMP/moved" 2>"$TMP/err" &
MOVER=$!
stopped() { [[ $(ps -o stat= -p "$B_PID") = T* ]]; }
wait_for -t 60 stopped
killed "$A_PID"
kill -CONT "$B_PID"
wait_for -t 60 grep -q "connecting anew" "$B_LOG"
giver
wait "$MOVER" || fail "$(cat "$TMP/moved" "$TMP/err")"
same || fail "other bytes: $(<"$B_LOG")"
over
SIZE=16M
random_file "$TMP/contents" 16M

echo "== the giver is lost: only errors, no zeros"
donors --keep 0
begin
killed "$A_PID"
giver --keep 0
wait "$MOVER" && fail "it has moved: $(<"$TMP/moved")"
grep -q "has lost the bytes that were not here yet" "$TMP/err" ||
	fail "$(cat "$TMP/err" "$B_LOG")"
only_errors
killed "$B_PID"
taker
only_errors 10 # it knows that nothing comes any more
over

echo "== the giver is gone for good, as an operator says"
donors
begin
! weft move --resolve --giver-is-gone "$A/r" "$B" 2>"$TMP/err" || fail "it is there"
grep -q "nothing is taken for lost: $A is there" "$TMP/err" || fail "$(<"$TMP/err")"
killed "$A_PID"
wait_for -t 60 grep -q "connecting anew" "$B_LOG"
# Nobody can listen there: it is bound.
python3 -c 'import socket, time
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
time.sleep(600)' >"$TMP/bound" &
bound=$!
wait_for test -s "$TMP/bound"
! weft move --resolve --giver-is-gone "weft://127.0.0.1:$(<"$TMP/bound")/r" "$B" 2>"$TMP/err" ||
	fail "it is another donor"
kill "$bound"
wait "$bound" || :
gives_up() {
	weft move --resolve --giver-is-gone "$A/r" "$B" --json 2>/dev/null |
		jq -e '.done == ["absent-lost"] and .to_is == "filling" and .from_is == null' \
			>/dev/null
}
wait_for -t 60 gives_up
wait "$MOVER" && fail "it has moved: $(<"$TMP/moved")"
jq -se '.[-1].error | contains("is gone for good, as somebody said")' "$TMP/moved" >/dev/null ||
	fail "$(<"$TMP/moved")"
only_errors 10
kill "$B_PID" && wait "$B_PID" || :

echo "== the taker is not gone, as an operator said, and fills"
donors
begin
kill -STOP "$B_PID"
weft move --resolve --taker-is-gone "$A/r" "$B" >"$TMP/out" 2>"$TMP/err" ||
	fail "$(cat "$TMP/out" "$TMP/err")"
kill -CONT "$B_PID"
wait "$MOVER" && fail "it has moved: $(<"$TMP/moved")"
jq -se '.[-1].error | contains("has begun anew")' "$TMP/moved" >/dev/null || fail "$(<"$TMP/moved")"
only_errors 10
over

echo "== a giver that cannot be read once it has given"
. "$WEFT_SRC/tests/move.sh"
scripted a '{"give-look": [{"epoch": "0000000000000001", "size": 4096, "read_only": false,
	"file": false, "follow": 0, "cannot_follow": 0, "names": ""}]}'
A=weft://127.0.0.1:$A_PORT B_PORT=$(free_port)
taker
! weft move --post-copy "$A/r" "weft://127.0.0.1:$B_PORT" >"$TMP/out" 2>&1 || fail "it moved"
grep -q "gives nothing away before it is copied: move it without --post-copy" "$TMP/out" ||
	fail "$(<"$TMP/out")"
asked a '.op == "give-look"' || fail "it was not asked"
over
