# SPDX-License-Identifier: MIT
# presets: dev asan
# A file of a lent directory that is replaced, removed or resized is lent as it is now once nobody
# uses the old one; while one is used, nothing is written to a file that has no name any more.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdinfo qemu-io

fill() { # LETTER BYTES PATH
	head -c "$2" /dev/zero | tr '\0' "$1" >"$3"
}
io() { # NAME COMMAND…
	local name=$1
	shift
	timeout 20 qemu-io -f raw "${@/#/-c}" "nbd://127.0.0.1:$PORT/$name" >"$TMP/io" 2>&1 &&
		! grep -q 'failed' "$TMP/io"
}
size() {
	nbdinfo --size "nbd://127.0.0.1:$PORT/$1"
}

mkdir "$TMP/d"
fill A 4096 "$TMP/d/a"
start_donor --directory "$TMP/d"
io a 'read -P 0x41 0 4096' || fail "$(cat "$TMP/io")"
fill B 8192 "$TMP/new"
mv "$TMP/new" "$TMP/d/a"
[[ $(size a) = 8192 ]] || fail "the old size is lent"
io a 'read -P 0x42 0 8192' || fail "stale: $(cat "$TMP/io")"
io a 'write -P 0x43 0 8192' flush || fail "$(cat "$TMP/io")"
[[ $(tr -d C <"$TMP/d/a" | wc -c) = 0 ]] || fail "what was written is not in the file"
truncate -s 16384 "$TMP/d/a"
[[ $(size a) = 16384 ]] || fail "the old size is lent"
rm "$TMP/d/a"
! size a 2>/dev/null || fail "a removed file is lent"

# In use.
fill A 4096 "$TMP/d/a"
mkfifo "$TMP/commands"
exec 9<>"$TMP/commands"
qemu-io -f raw "nbd://127.0.0.1:$PORT/a" <"$TMP/commands" >"$TMP/user" 2>&1 &
user=$!
echo 'write -P 0x44 0 4096' >&9
wait_for grep -q wrote "$TMP/user"
fill B 4096 "$TMP/new"
mv "$TMP/new" "$TMP/d/a"
echo 'write -P 0x45 0 4096' >&9
wait_for grep -q 'write failed: Input/output error' "$TMP/user"
echo quit >&9
exec 9>&-
wait $user || :
lent_again() {
	io a 'read -P 0x42 0 4096'
}
wait_for lent_again
stop_donor || fail "exit status $?"
