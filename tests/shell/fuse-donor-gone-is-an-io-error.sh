# SPDX-License-Identifier: MIT
# A donor that stays away longer than --dead-timeout: reading and writing the file fail with EIO,
# and work again once it is back with the contents.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool jq

port=$(free_port)
start_donor --memory r=8M --listen "127.0.0.1:$port"
weft attach "$URI" --mount "$TMP/file" --dead-timeout 0.5 >/dev/null
random_file "$TMP/image" 8M
dd if="$TMP/image" of="$TMP/file" bs=1M conv=notrunc,fsync status=none
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" || :
state_is() {
	[[ $(weft status r --json | jq -r '.attachments[0].state') = "$1" ]]
}
wait_for state_is dead
answer=$(dd if="$TMP/file" of=/dev/null iflag=direct bs=4096 count=1 2>&1) &&
	fail "read without a donor"
[[ $answer = *'Input/output error'* ]] || fail "$answer"
answer=$(dd if="$TMP/image" of="$TMP/file" oflag=direct conv=notrunc bs=4096 count=1 2>&1) &&
	fail "written without a donor"
[[ $answer = *'Input/output error'* ]] || fail "$answer"
grep -q "is dead" "$WEFT_RUN_DIR/attach-r.log" || fail "nothing was said about it"
start_donor --memory r=8M --listen "127.0.0.1:$port"
wait_for state_is ready
dd if="$TMP/file" iflag=direct bs=1M status=none | cmp - "$TMP/image"
weft detach r
