# SPDX-License-Identifier: MIT
# A session's alias: a stock client that comes by it reads and writes where another attachment would
# be kept out.  A guess is refused, and so is the alias once its session has said goodbye, or was
# superseded, which hangs up on the client first.
# presets: dev asan
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io nbdinfo python3

# A borrower's session with an alias, until it is told to end.
cat >"$TMP/session" <<'END'
import os, socket, struct, sys
port, id, generation, alias = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
s = socket.create_connection(("127.0.0.1", port))
def take(n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            sys.exit("the donor hung up")
        data += more
    return data
def option(number, data):
    s.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
    while True:
        _, _, kind, size = struct.unpack(">QIII", take(20))
        data = take(size)
        if kind == 1:
            return
        if kind & 1 << 31:
            sys.exit("refused: " + data.decode())
def text(string):
    return struct.pack(">I", len(string)) + string.encode()
take(18)
s.sendall(struct.pack(">I", 3))
option(8, b"")
option(10, text("r") + struct.pack(">I", 1) + text(
    f"weft:session:v=1,id={id},gen={generation},mode=w,name=control,!alias={alias}"))
option(7, text("r") + struct.pack(">H", 0))
print("granted", flush=True)
sys.stdin.readline()
s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))
print("ended", len(s.recv(1)), flush=True)
END
id=00112233445566778899aabbccddeeff
first=0123456789abcdef0123456789abcdef second=ffffffffffffffff0123456789abcdef
session() { # GENERATION ALIAS: sets SESSION; descriptor 7 tells it to end
	mkfifo "$TMP/end$1"
	python3 "$TMP/session" "$PORT" $id "$1" "$2" <>"$TMP/end$1" >"$TMP/session$1" 2>&1 &
	SESSION=$!
	wait_for grep -q granted "$TMP/session$1"
}
at() { echo "nbd://127.0.0.1:$PORT/weft:alias:$1"; }
io() {
	timeout 60 qemu-io -f raw "${@:2}" "$1" >"$TMP/io" 2>&1 &&
		! grep -qiE 'failed|error' "$TMP/io"
}
start_donor --memory r=8M

session 1 $first
io "$(at $first)" -c 'write -P 0x41 0 64k' -c flush -c 'discard 1M 64k' -c 'read -P 0x41 0 64k' ||
	fail "$(cat "$TMP/io")"
nbdinfo --json "$(at $first)" | grep -q '"can_multi_conn": true' || fail "no multi-conn"
! nbdinfo --list "nbd://127.0.0.1:$PORT" | grep -i alias || fail "it is in the list"
! io "$(at ${first/0/1})" -r -c 'read 0 4k' || fail "a guess is let in"
! io "$(at "${first%f}")" -r -c 'read 0 4k' || fail "a part is let in"
! io "nbd://127.0.0.1:$PORT/r" -c 'write 0 4k' || fail "others are let in beside it"

# Superseded while a client is there.
mkfifo "$TMP/commands"
timeout 60 qemu-io -f raw "$(at $first)" <>"$TMP/commands" >"$TMP/client" 2>&1 &
client=$!
exec 8<>"$TMP/commands"
echo 'write -P 0x42 0 64k' >&8
wait_for grep -q 'bytes at offset' "$TMP/client"
session 2 $second
echo 'write -P 0x43 0 64k' >&8
wait_for grep -qiE 'failed|error' "$TMP/client"
echo quit >&8
wait $client || :
io "$(at $second)" -r -c 'read -P 0x42 0 64k' || fail "$(cat "$TMP/io")"
! io "$(at $first)" -r -c 'read 0 4k' || fail "a superseded session's alias is good"

# Goodbye: the alias is nothing any more, and the region is free.
echo >"$TMP/end2"
wait_for gone "$SESSION"
! io "$(at $second)" -r -c 'read 0 4k' || fail "the alias outlives its session"
io "nbd://127.0.0.1:$PORT/r" -c 'read -P 0x42 0 64k' || fail "$(cat "$TMP/io")"
stop_donor || fail "the donor's exit status: $?"
