# SPDX-License-Identifier: MIT
# Lent memory is locked, so that the donor's own swap does not take it; where it may not be, it is
# lent all the same.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq prlimit
[[ $EUID = 0 ]] || skip "only root locks memory without a limit"

locked_kib() {
	sed -n 's/^VmLck:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$DONOR_PID/status"
}

start_donor --memory r=64M
(($(locked_kib) >= 65536)) || fail "$(locked_kib) KiB are locked"
weft status --json | jq -e '.donors[0].regions[0].locked == true' >/dev/null ||
	fail "status does not say so"
kill -KILL "$DONOR_PID"
start_donor --memory r=64M
grep -q '^recovered' "$DONOR_LOG" || fail "not recovered"
(($(locked_kib) >= 65536)) || fail "$(locked_kib) KiB are locked after a recovery"
stop_donor
# CAP_IPC_LOCK is what frees root of the limit.
setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock prlimit \
	--memlock=4096 "$WEFT_BIN/weft-serve" --memory r=64M \
	--listen 127.0.0.1:0 >"$TMP/poor" 2>&1 &
DONOR_PID=$!
wait_for grep -qx ready "$TMP/poor"
(($(locked_kib) == 0)) || fail "locked beyond the limit"
