# SPDX-License-Identifier: MIT
# Two bridges with one identity fight over a region with writes in flight: the newer incarnation
# wins for good, and nothing of the older lands after the newer was attached.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io fio jq

start_donor --memory r=16M
weft attach "$URI" --socket "$TMP/s" >/dev/null
fio --name=w --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randwrite --bs=64k \
	--iodepth=16 --size=16M \
	--time_based --runtime=60 --buffer_pattern=0x11 >"$TMP/fio" 2>&1 &
fio=$!
writing() {
	[[ $(weft status r --json | jq .attachments[0].requests.write) -gt 100 ]]
}
wait_for writing
# As if the machine had been cloned: the same state, the next incarnation.
mkdir -m 700 "$TMP/run2"
cp "$WEFT_RUN_DIR/attach-r.json" "$TMP/run2"
WEFT_RUN_DIR=$TMP/run2 weft attach "$URI" --socket "$TMP/s2" >/dev/null || fail "not taken over"
cleanup_add "WEFT_RUN_DIR='$TMP/run2' weft detach --force r"
qemu-io -f raw "nbd+unix:///?socket=$TMP/s2" -c 'write -P 0x22 0 16M' >/dev/null
stale() {
	[[ $(weft status r --json | jq -r '.attachments[0].state') = stale ]]
}
wait_for stale
wait $fio && fail "fio saw no error"
qemu-io -f raw "nbd+unix:///?socket=$TMP/s2" -c 'read -P 0x22 0 16M' >"$TMP/read" ||
	fail "$(cat "$TMP/read")"
! grep -q 'Pattern verification failed' "$TMP/read" || fail "an old write landed"
! weft detach --force r 2>/dev/null || fail "it was lost, and detach did not say so"
