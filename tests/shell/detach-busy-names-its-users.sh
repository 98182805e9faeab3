# SPDX-License-Identifier: MIT
# An attachment in use is not detached: who uses it is named; --force ends it all the same.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool socat

start_donor --memory r=1M
weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" >/dev/null
busy() { # TEXT
	local answer
	answer=$(weft detach r 2>&1) && fail "detached although in use: $1"
	[[ $answer = *"$1"* && $answer = *"weft detach --force r"* ]] || fail "$answer"
}
tail -f -n 0 "$TMP/file" >/dev/null &
pid=$!
opened() {
	readlink "/proc/$pid/fd/"* | grep -qxF "$TMP/file"
}
wait_for opened
busy "pid $pid (tail) has it open"
kill $pid
wait $pid || :
connected() {
	[[ $(weft status r) = *"1 client"* ]]
}
# A client of the socket that says nothing.
coproc socat STDIO "UNIX-CONNECT:$TMP/s"
wait_for connected
busy "(socat) is connected to the socket"
cmp -n 4096 "$TMP/file" /dev/zero || fail "a refused detach took something away"
exec 9<>"$TMP/file"
busy "pid $$ (bash) has it open"
[[ $(weft detach r 2>&1) != *"(weft-detach)"* ]] ||
	fail "weft detach counts itself: $(weft detach r 2>&1)"
weft detach --force r || fail "--force"
! echo x 2>/dev/null >&9 || fail "the file can still be written"
exec 9>&-
[[ ! -e $TMP/file && ! -e $TMP/s ]] || fail "left behind"
answer=$(weft detach r 2>&1) && fail "detached twice"
[[ $answer = *"there is no attachment 'r'"* ]] || fail "$answer"
