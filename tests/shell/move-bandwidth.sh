# SPDX-License-Identifier: MIT
# A move with --bandwidth takes what its bytes take: chunks that were written one by one count as
# what they are.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3

start_donor --take 64M --listen 127.0.0.1:0
taker=weft://$(sed -n 's/^listening on //p' "$DONOR_LOG")
start_donor --memory r=32M
weft attach "$URI" --name box --socket "$TMP/box" >"$TMP/attached"
python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/box" "$TMP/stop" 1 100 \
	>"$TMP/writer" 2>&1 &
writer=$!
wait_for -t 60 test -e "$TMP/stop.began"
weft move --json --bandwidth 16M "$URI" "$taker" >"$TMP/moved" || fail "it does not move"
touch "$TMP/stop"
wait "$writer" || fail "$(cat "$TMP/writer")"
tail -n 1 "$TMP/moved"
# With 1 MiB for each of them it would be a hundred times as long.
jq -se 'last | .round > 1 and .copied_bytes > .size_bytes and
	.seconds > .copied_bytes / 1.7e7 and .seconds < 10 * .copied_bytes / 1.6e7' \
	"$TMP/moved" >/dev/null || fail "$(cat "$TMP/moved")"
weft detach box
