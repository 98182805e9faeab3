# SPDX-License-Identifier: MIT
# What quickstart reads back with finds one wrong byte, in a file and behind an NBD socket.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdkit

random_file "$TMP/image" 3145728
cp "$TMP/image" "$TMP/good"
quickstart-read "$TMP/image" "$TMP/good" >"$TMP/out" || fail "equal files differ"
[[ $(wc -l <"$TMP/out") = 2 ]] || fail "$(cat "$TMP/out")"
cp "$TMP/image" "$TMP/bad"
old=$(od -An -tu1 -j 2000000 -N 1 "$TMP/bad")
printf '%b' "\\x$(printf %x $((old ^ 1)))" |
	dd of="$TMP/bad" bs=1 seek=2000000 conv=notrunc status=none

quickstart-read "$TMP/image" "$TMP/bad" 2>"$TMP/err" && fail "a wrong byte in a file was not found"
grep -q "byte 2000000" "$TMP/err" || fail "$(cat "$TMP/err")"

nbdkit -f -U "$TMP/bad.sock" file "$TMP/bad" &
wait_for test -S "$TMP/bad.sock"
quickstart-read "$TMP/image" "$TMP/bad.sock" 2>"$TMP/err" &&
	fail "a wrong byte behind a socket was not found"
grep -q "byte 2000000" "$TMP/err" || fail "$(cat "$TMP/err")"
