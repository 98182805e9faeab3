# SPDX-License-Identifier: MIT
# A donor that comes back without the contents: every request fails, status says why, and never are
# there zeros.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdcopy qemu-io jq

port=$(free_port)
start_donor --memory r=8M --listen "127.0.0.1:$port" --keep 0
weft attach "$URI" --socket "$TMP/s"
nbd="nbd+unix:///?socket=$TMP/s"
qemu-io -f raw "$nbd" -c 'write -P 7 0 8M' >/dev/null
stop_donor
start_donor --memory r=8M --listen "127.0.0.1:$port"
stale() {
	[[ $(weft status r --json | jq -r '.attachments[0].state') = stale ]]
}
wait_for stale
qemu-io -f raw "$nbd" -c 'read 0 4096' >"$TMP/read" 2>&1 || :
grep -q 'Input/output error' "$TMP/read" || fail "a read: $(cat "$TMP/read")"
! qemu-io -f raw "$nbd" -c 'write -P 8 0 4096' >/dev/null 2>&1 || fail "a write went through"
why=$(weft status r)
[[ $why = *epoch* ]] || fail "$why"
# A client that has ended is a user until the bridge has seen it go.
unused() {
	[[ $(weft status r) = *", 0 clients"* ]]
}
wait_for unused
! weft detach r 2>"$TMP/detach" || fail "detach did not say that data was lost"
grep -q 'is detached, but the attachment was lost' "$TMP/detach" || fail "$(cat "$TMP/detach")"
weft attach "$URI" --socket "$TMP/s" || fail "no new attachment"
qemu-io -f raw "$nbd" -c 'write -P 9 0 4096' -c 'read -P 9 0 4096' >/dev/null
wait_for unused
weft detach r
