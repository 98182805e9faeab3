# SPDX-License-Identifier: MIT
# A client of a bridge's socket that reconnects by itself names the attachment's tenure: it comes
# back to the bridge that took over, and is refused by one that was attached anew, or was reset.
# presets: dev asan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"
need_tool nbdinfo

lend
attach=(weft attach "$URI" --socket "$TMP/s" --dead-timeout 120)
"${attach[@]}" >/dev/null || fail "attach"
socket_tenure() { weft list "$socket" --json | jq -r '.[0].tenure'; }
t=$(socket_tenure)
[[ $t =~ ^[0-9a-f]{8,}$ ]] ||
	fail "weft list says no tenure of the socket: $(weft list "$socket" --json)"
# Its bridge is killed and taken over.
client "server.type=unix,server.path=$TMP/s,export=r@$t"
told 'write -P 0x41 0 8k' || fail "$(cat "$TMP/client")"
kill_bridge
"${attach[@]}" >/dev/null || fail "taken over"
told 'read -P 0x41 0 8k' || fail "it may come back: $(cat "$TMP/client")"
! grep verification "$TMP/client" || fail "other bytes"
[[ $(socket_tenure) = "$t" ]] || fail "a take-over ended the tenure"

# Detached, another writes, attached anew with the same socket.
kill_bridge
weft detach r >/dev/null || fail "detach"
wait_for nobody_has_it
writes 0x42 0 8192 "$donor" || fail "$(cat "$TMP/io")"
"${attach[@]}" >/dev/null || fail "attach anew"
! told 'write -P 0x43 4k 4k' || fail "it writes after another did"
! told 'read 0 4k' || fail "it reads after another wrote"
client_ends
reads 0x42 0 8192 "$donor" 2>/dev/null || reads 0x42 0 8192 "$socket" ||
	fail "written over: $(cat "$TMP/io")"
! io "nbd+unix:///r@$t?socket=$TMP/s" -r -c "read 0 4k" || fail "an old tenure is taken"
grep -qi tenure "$TMP/io" || fail "it does not say why: $(cat "$TMP/io")"

# Stale, and reset.
t=$(socket_tenure)
client "server.type=unix,server.path=$TMP/s,export=r@$t"
told 'read -P 0x42 0 8k' || fail "$(cat "$TMP/client")"
suspend_bridge
wait_for nobody_has_it
writes 0x44 0 8192 "$donor" || fail "$(cat "$TMP/io")"
wake_bridge
! told 'read 0 4k' || fail "it reads after another wrote"
wait_for is_stale
client_ends
reset() { weft reset --discard r >"$TMP/out" 2>&1; }
wait_for reset || fail "reset: $(cat "$TMP/out")"
[[ $(socket_tenure) != "$t" ]] || fail "a reset left the tenure as it was"
! io "nbd+unix:///r@$t?socket=$TMP/s" -r -c 'read 0 4k' ||
	fail "a tenure of before the reset is taken"
reads 0x44 0 8192 "nbd+unix:///r@$(socket_tenure)?socket=$TMP/s" ||
	fail "the new tenure is not taken: $(cat "$TMP/io")"
reads 0x44 0 8192 "$socket" || fail "the plain name: $(cat "$TMP/io")"
detach
