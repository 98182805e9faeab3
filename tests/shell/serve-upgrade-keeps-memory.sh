# SPDX-License-Identifier: MIT
# SIGUSR2: the daemon ends cleanly, and the next one has the memory, under the same epoch.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io

start_donor --memory scratch=8M
epoch=$(sed -n 's/^region .*epoch \([0-9a-f]*\) .*/\1/p' "$DONOR_LOG")
qemu-io -f raw "nbd://127.0.0.1:$PORT/scratch" -c 'write -P 0x42 0 8M' >/dev/null
stop_donor USR2 || fail "exit status $?"
grep -q 'memory stays with weftholder' "$DONOR_LOG" || fail "nothing was said"
# Another port, another process: the name of the region is what counts.
start_donor --memory scratch=8M
grep -q "^recovered region 'scratch' (8 MiB), epoch $epoch" "$DONOR_LOG" || fail "not recovered"
qemu-io -f raw "nbd://127.0.0.1:$PORT/scratch" -c 'read -P 0x42 0 8M' |
	grep -q 'read 8388608/8388608' ||
	fail "other bytes"

# A second daemon beside a live one takes memory of its own.
first=$DONOR_PID
start_donor --memory scratch=8M
! grep -q '^recovered' "$DONOR_LOG" || fail "took a live daemon's memory"
stop_donor
kill "$first"
