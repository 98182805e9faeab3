# SPDX-License-Identifier: MIT
# tier: long
# timeout: 300
# presets: dev asan
# A region moves between two donors in the testbed while a borrower has it over RDMA: its writes go
# over TCP meanwhile, none is lost, and it is back on RDMA at the other donor.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 280 <<'END'
start_donor --listen "$RDMA_IP:7001" --allow-insecure --memory r=16M
giver=$DONOR_LOG
start_donor --listen "$RDMA_IP:7002" --allow-insecure --take 64M
taker=$DONOR_LOG
weft attach "weft://$RDMA_IP:7001/r" --name box --socket "$TMP/box" >"$TMP/attached" 2>&1
over() { # TRANSPORT PORT
	weft status --json box | jq -e --arg t "$1" --arg p "$2" '.attachments[0].donors[0] |
		.transport == $t and (.uri | contains(":" + $p + "/"))' >/dev/null
}
wait_for -t 60 over rdma 7001
python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/box" "$TMP/stop" 1 200 \
	>"$TMP/writer" 2>&1 &
writer=$!
wait_for -t 60 test -e "$TMP/stop.began"
weft move "weft://$RDMA_IP:7001/r" "weft://$RDMA_IP:7002" >"$TMP/moved" 2>&1 || {
	cat "$TMP/moved" "$giver" "$taker"
	fail "it did not move"
}
cat "$TMP/moved"
wait_for -t 90 over rdma 7002 || { weft status box; fail "it is not back on RDMA"; }
touch "$TMP/stop"
wait "$writer" || { cat "$TMP/writer"; weft status --explain box; fail "the writer"; }
cat "$TMP/writer"
grep 'over TCP, where' "$giver" || fail "nobody was sent to TCP meanwhile"
weft detach box
END
