# SPDX-License-Identifier: MIT
# Without a next daemon the holder frees the memory after --keep seconds; it is small; it can be
# replaced.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

no_holder() {
	! ls "$WEFT_RUN_DIR"/hold-*.sock
}

start_donor --memory scratch=64M --keep 1
holder=$(basename "$WEFT_RUN_DIR"/hold-*.sock .sock)
holder=${holder#hold-}
[[ $(<"/proc/$holder/comm") = weftholder ]] || fail "not the holder: $(<"/proc/$holder/comm")"
if [[ $WEFT_PRESET != asan && $WEFT_PRESET != tsan ]]; then
	rss=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$holder/status")
	((rss < 4096)) || fail "the holder's resident set is $rss KiB"
fi
stop_donor KILL || :
wait_for gone "$holder"
wait_for no_holder
start_donor --memory scratch=64M --keep 1
! grep -q '^recovered' "$DONOR_LOG" || fail "recovered what was given up"

# --keep 0: nobody keeps anything.
stop_donor
start_donor --memory scratch=64M --keep 0
no_holder 2>/dev/null || fail "a holder with --keep 0"
stop_donor

# A holder that dies soon after the start is reported; the donor goes on.
start_donor --memory scratch=1M
holder=$(basename "$WEFT_RUN_DIR"/hold-*.sock .sock)
kill -KILL "${holder#hold-}"
wait_for grep -q 'weftholder ended' "$DONOR_LOG"
# Its socket is a leftover that the next start clears away.
stop_donor || fail "exit status $?"
start_donor --memory scratch=1M
wait_for bash -c "[[ \$(ls $WEFT_RUN_DIR/hold-*.sock | wc -l) = 1 ]]"
