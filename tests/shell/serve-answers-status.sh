# SPDX-License-Identifier: MIT
# The control socket tells of regions, sessions and counters.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq socat nbdinfo

start_donor --memory scratch=1M --memory other=2M --lease 7
nbdinfo --size "nbd://127.0.0.1:$PORT/scratch" >/dev/null
status=$(echo '{"op": "status"}' | socat -t 5 - "UNIX-CONNECT:$WEFT_RUN_DIR/serve-$PORT.sock")
epoch=$(sed -n "s/^region 'other'.*epoch \([0-9a-f]*\) .*/\1/p" "$DONOR_LOG")
jq -e --arg epoch "$epoch" --argjson pid "$DONOR_PID" --arg listen "127.0.0.1:$PORT" '
	.kind == "donor" and .pid == $pid and .lease_s == 7 and .listen == [$listen] and
	(.regions | map(.name)) == ["scratch", "other"] and .regions[1].epoch == $epoch and
	.regions[1].size_bytes == 2097152 and .counters.accepted >= 1 and .attachments == [] and
	(.regions | map(.kept_by)) == ["holder", "holder"]' <<<"$status" >/dev/null || fail "$status"
[[ $(stat -c %a "$WEFT_RUN_DIR/serve-$PORT.sock") = 600 ]] || fail "others may ask"
answer=$(echo '{"op": "dance"}' | socat -t 5 - "UNIX-CONNECT:$WEFT_RUN_DIR/serve-$PORT.sock")
jq -e .error <<<"$answer" >/dev/null || fail "$answer"
stop_donor
[[ ! -e $WEFT_RUN_DIR/serve-$PORT.sock ]] || fail "the control socket was left behind"
