# SPDX-License-Identifier: MIT
# timeout: 60
# A donor with --watchdog that does not run any more is killed by the kernel, and one that runs is
# not.  Its memory outlives that, as any crash.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdcopy

donor() { start_donor --watchdog 5 --memory r=1M; }
epoch() { sed -n 's/^region .*epoch \([0-9a-f]*\) .*/\1/p' "$DONOR_LOG"; }
donor
head -c 4096 /dev/urandom >"$TMP/data"
truncate -s 1M "$TMP/data"
nbdcopy "$TMP/data" "nbd://127.0.0.1:$PORT/r"
before=$(epoch)
ended() { gone "$DONOR_PID"; }

# More than its 5 s of nothing to do but to live.
sleep 6
! ended || fail "it was killed although it ran: $(cat "$DONOR_LOG")"
start=$SECONDS
kill -STOP "$DONOR_PID"
wait_for -t 15 ended
status=0
wait "$DONOR_PID" || status=$?
((status == 128 + 9)) || fail "status $status"
((SECONDS - start >= 3)) || fail "killed after $((SECONDS - start)) s"

donor
[[ $(epoch) = "$before" ]] || fail "another epoch: $(cat "$DONOR_LOG")"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/back"
cmp "$TMP/data" "$TMP/back"
stop_donor
echo "ok: killed after $((SECONDS - start)) s of standing still, with its memory kept"
