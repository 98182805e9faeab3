# SPDX-License-Identifier: MIT
# weft reset is refused, with who it is, while somebody behind the attachment may remember the old
# contents: a client of its socket, a process that has its file open.  What they wrote does not
# reach the new contents.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"

lend
weft attach "$URI" --socket "$TMP/s" --mount "$TMP/file" --dead-timeout 120 >/dev/null ||
	fail "attach"
writes 0x41 0 8192 "$socket" || fail "$(cat "$TMP/io")"
suspend_bridge
wait_for nobody_has_it
writes 0x42 0 8192 "$donor" || fail "$(cat "$TMP/io")"
wake_bridge
wait_for is_stale
refused() { # TEXT
	! weft reset --discard r >"$TMP/out" 2>&1 || fail "it was reset although $1"
	grep -qE -- "$2" "$TMP/out" || fail "it does not say that $1: $(cat "$TMP/out")"
	is_stale || fail "it is not stale any more"
}

# A client of the socket.
mkfifo "$TMP/commands"
exec 8<>"$TMP/commands"
qemu-io -f raw "$socket" <"$TMP/commands" >"$TMP/client" 2>&1 8<&- &
client=$!
used() { [[ $(weft status r) = *", 1 client"* ]]; }
wait_for used
refused "a client is connected" "qemu-io|client"
echo 'write -P 0x43 0 4096' >&8
wait_for grep -q 'write failed: Input/output error' "$TMP/client"
echo quit >&8
exec 8>&-
wait $client || :
wait_for unused

# Its file is open, with a page that became dirty behind it.
sleep 1000 <>"$TMP/file" &
holder=$!
is_open() { [[ $(readlink "/proc/$holder/fd/0") = "$TMP/file" ]]; }
wait_for is_open
refused "the file is open" "$holder|sleep"
! dd if=/dev/urandom of="$TMP/file" bs=4096 count=1 conv=notrunc,fsync status=none 2>"$TMP/err" ||
	fail "it takes a write"
kill $holder
wait $holder || :
reset() { weft reset --discard r >"$TMP/out" 2>&1; }
wait_for reset || fail "nobody uses it: $(cat "$TMP/out")"
cmp -n 8192 "$TMP/file" <(head -c 8192 /dev/zero | tr '\0' B) ||
	fail "it does not have what is there now"
reads 0x42 0 8192 "$socket" || fail "written over: $(cat "$TMP/io")"
writes 0x44 0 4096 "$socket" || fail "$(cat "$TMP/io")"
reads 0x44 0 4096 "$socket" || fail "$(cat "$TMP/io")"
detach
io "$donor" -r -c 'read -P 0x44 0 4096' -c 'read -P 0x42 4096 4096' ||
	fail "written over: $(cat "$TMP/io")"
