# SPDX-License-Identifier: MIT
# --read-only: exports say so, writes are refused, and the file is not touched.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdinfo qemu-io

random_file "$TMP/image" 1048576
cp -p "$TMP/image" "$TMP/copy"
stamp=$(stat -c %Y.%Z "$TMP/image")
start_donor --file "image=$TMP/image" --read-only
nbdinfo "nbd://127.0.0.1:$PORT/image" | grep -q 'is_read_only: true' || fail "not read-only"
! qemu-io -f raw "nbd://127.0.0.1:$PORT/image" -c 'write 0 512' >"$TMP/log" 2>&1 || fail "written"
qemu-io -r -f raw "nbd://127.0.0.1:$PORT/image" -c 'read 0 1M' | grep -q 'read 1048576/1048576' ||
	fail "not read"

# Two donors may read one file; none may write it beside them.
first=$DONOR_PID
start_donor --file "image=$TMP/image" --read-only
! weft-serve --listen 127.0.0.1:0 --file "image=$TMP/image" 2>"$TMP/log" ||
	fail "a writer beside readers"
grep -q 'is in use' "$TMP/log" || fail "$(cat "$TMP/log")"
stop_donor || fail "exit status $?"
kill "$first"
cmp "$TMP/image" "$TMP/copy" || fail "the file changed"
[[ $(stat -c %Y.%Z "$TMP/image") = "$stamp" ]] || fail "the file was touched"
