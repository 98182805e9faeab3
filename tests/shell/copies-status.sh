# SPDX-License-Identifier: MIT
# timeout: 120
# A device that lacks copies says so: in a line, as JSON, as metrics and by the exit status of weft
# status; with too few copies requests wait, or fail, as told.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"

schema_holds() {
	local wrong
	weft status --json >"$TMP/json" || :
	wrong=$(jq -r --arg keys no -f "$WEFT_SRC/tests/support/status-schema.jq" "$TMP/json")
	[[ ! $wrong ]] || fail "$wrong"
}
metric() { weft status --prometheus | grep "^$1" | sed 's/.* //'; }

export COPY_LEASE=5
lend a
lend b
mirror a b -- --on-too-few error --dead-timeout 4 || fail "$(cat "$TMP/err")"
writes 1 || fail "$(cat "$TMP/io")"
weft status m >"$TMP/out" || fail "exit status $? of a device that is whole"
grep -q "2 copies, all current; survives: 1 donor" "$TMP/out" || fail "$(cat "$TMP/out")"
schema_holds
[[ $(metric 'weft_copies_current{name="m"}') = 2 ]] || fail "no metric"

lose b
writes 2 || fail "$(cat "$TMP/io")"
wait_for is_degraded
status=0
weft status m >"$TMP/out" || status=$?
((status == 3)) || fail "exit status $status of a device that is degraded"
degraded="2 copies, 1 current, DEGRADED since [0-9:]+ \(donor ${COPY[b]}: .*\), behind 8 MiB"
grep -qE "$degraded.*; survives: nothing" "$TMP/out" || fail "$(cat "$TMP/out")"
schema_holds
[[ $(metric 'weft_copies_current{name="m"}') = 1 ]] || fail "no metric"
[[ $(metric "weft_copy_state{name=\"m\",donor=\"${COPY[b]}\",state=\"lost\"}") = 1 ]] ||
	fail "no metric"

log=$WEFT_RUN_DIR/attach-m.log
grep -qF "'m': the copy at ${COPY[b]} is not current any more" "$log" || fail "$(cat "$log")"

# The other one is lost as well.
lose a
is_too_few() { [[ $(copies .state) = "too few" ]]; }
wait_for is_too_few
status=0
weft status m >"$TMP/out" || status=$?
((status == 4)) || fail "exit status $status with no copy"
grep -q "TOO FEW.*it needs 1" "$TMP/out" || fail "$(cat "$TMP/out")"
! reads 2 || fail "read without a copy"
lend a
wait_for is_degraded
wait_for reads 2
lend b
wait_for -t 60 is_whole
weft status m >/dev/null || fail "exit status $?"
wait_for grep -qF "'m': the copy at ${COPY[b]} is current again" "$log"
detach
