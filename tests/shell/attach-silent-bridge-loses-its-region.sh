# SPDX-License-Identifier: MIT
# A bridge that was stopped for longer than the lease: somebody else may have the region then, and
# the old one never writes again. When nobody wrote meanwhile, it goes on.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io jq

start_donor --memory r=1M --lease 1
nbd="nbd+unix:///?socket=$TMP/s"
weft attach "$URI" --socket "$TMP/s" >/dev/null
pid=$(weft status r --json | jq '.attachments[0].pid')
qemu-io -f raw "$nbd" -c 'write -P 1 0 1M' >/dev/null
nobody_has_it() {
	weft status --json | jq -e '.donors[0].attachments | length == 0'
}
kill -STOP "$pid"
cleanup_add "kill -CONT $pid 2>/dev/null"
wait_for nobody_has_it >/dev/null
kill -CONT "$pid"
qemu-io -f raw "$nbd" -c 'read -P 1 0 1M' -c 'write -P 2 0 1M' >"$TMP/io" ||
	fail "alone, it did not go on: $(cat "$TMP/io")"
! grep 'Pattern verification failed' "$TMP/io" || fail "other bytes"

kill -STOP "$pid"
wait_for nobody_has_it >/dev/null
mkdir -m 700 "$TMP/run2"
WEFT_RUN_DIR=$TMP/run2 weft attach "$URI" --socket "$TMP/s2" >/dev/null ||
	fail "the region was not free"
cleanup_add "WEFT_RUN_DIR='$TMP/run2' weft detach --force r"
qemu-io -f raw "nbd+unix:///?socket=$TMP/s2" -c 'write -P 3 0 1M' >/dev/null
kill -CONT "$pid"
! qemu-io -f raw "$nbd" -c 'write -P 4 0 1M' >/dev/null 2>&1 || fail "the old bridge still writes"
qemu-io -f raw "nbd+unix:///?socket=$TMP/s2" -c 'read -P 3 0 1M' | tee "$TMP/io"
! grep 'Pattern verification failed' "$TMP/io" || fail "an old write landed"
WEFT_RUN_DIR=$TMP/run2 weft detach r
stale() {
	[[ $(weft status r --json | jq -r '.attachments[0].state') = stale ]]
}
wait_for stale
