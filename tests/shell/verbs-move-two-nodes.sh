# SPDX-License-Identifier: MIT
# tier: long
# timeout: 700
# processors: 2
# A region moves between donors on two machines, over RDMA, and back, while a borrower writes to it
# over RDMA: no write is lost, and the borrower follows over RDMA.  It does so too when the link for
# RDMA is cut in the midst of a move, for 3 s; and the machine that gave it away may die then.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq

in_testbed --nodes 2 --timeout 650 <<'END'
far=$PEER_RDMA_IP:7001 near=$RDMA_IP:7002
node2 "mkdir -p -m 700 /run/donor; WEFT_RUN_DIR=/run/donor exec weft-serve --listen $far \
	--allow-insecure --lease 20 --memory r=24M --take 64M" >"$TMP/far.log" 2>&1 &
listed() { timeout 5 weft list "weft://$far" | grep -q rdma; }
wait_for -t 120 listed
start_donor --listen "$near" --allow-insecure --lease 20 --take 64M
cleanup_add 'weft status; tail -n 20 "$TMP/far.log" "$DONOR_LOG" "$TMP"/moved* "$TMP/writer"'

over() { # TRANSPORT PLACE
	weft status --json r | jq -e --arg t "$1" --arg p "weft://$2/" '.attachments[0].donors[0] |
		.transport == $t and (.uri | startswith($p))' >/dev/null
}
moves_to() { weft status --json r | jq -e '.attachments[0].donors[0].moving_to' >/dev/null; }
# move FROM TO [OPTION…]: what it says goes to $TMP/moved.
move() {
	exec weft move "weft://$1/r" "weft://$2" --json "${@:3}" >"$TMP/moved" 2>"$TMP/moved.err"
}
moved() { # WHAT
	jq -r --arg what "$1" 'select(.phase == "done") |
		"== \($what): \(.seconds) s, " +
		"\(.copied_bytes / 1048576) MiB copied in \(.round) rounds, " +
		"frozen for \(.downtime_s * 1000 | round) ms"' "$TMP/moved"
}

(move "$far" "$near") || fail "nobody has it, and it did not move"
moved "unused, there"
(move "$near" "$far") || fail "nobody has it, and it did not move back"
moved "unused, back"

weft attach "weft://$far/r" --name r --socket "$TMP/s" --lanes 1 --dead-timeout 120 >/dev/null
wait_for -t 60 over rdma "$far"
python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/s" "$TMP/stop" 1 100 --patience 100 \
	>"$TMP/writer" 2>&1 &
writer=$!
wait_for -t 60 test -e "$TMP/stop.began"
(move "$far" "$near") || fail "it did not move"
moved "written to, there"
grep -q "region 'r' is read from weft://$far/r over RDMA" "$DONOR_LOG" ||
	fail "the taker did not read over RDMA"
wait_for -t 90 over rdma "$near"
(move "$near" "$far") || fail "it did not move back"
moved "written to, back"
grep -q "region 'r' is read from weft://$near/r over RDMA" "$TMP/far.log" ||
	fail "the taker did not read over RDMA"
wait_for -t 90 over rdma "$far"

move "$far" "$near" --bandwidth 3M &
mover=$!
wait_for -t 60 moves_to
monitor2 set_link rdma off >/dev/null
sleep 3 # the outage's length
monitor2 set_link rdma on >/dev/null
if ! wait $mover; then
	echo "== cut: $(tail -n 1 "$TMP/moved.err")"
	wait_for -t 120 over rdma "$far"
	(move "$far" "$near") || fail "it did not move after an outage"
fi
moved "with the link down for 3 s, there"
wait_for -t 90 over rdma "$near"
monitor2 quit >/dev/null
touch "$TMP/stop"
wait "$writer" || fail "the writer"
cat "$TMP/writer"
[[ $(weft status --json r | jq .attachments[0].errors) = 0 ]] || fail "requests failed"
weft detach r
END
