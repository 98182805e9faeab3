# SPDX-License-Identifier: MIT
# timeout: 280
# processors: 2
# The conformance suite over soft-RoCE, in the testbed, so that each run of the tests goes over
# RDMA.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

"$WEFT_SRC/tests/testbed/run" --timeout 240 \
	-- "$WEFT_BUILD/tests/conformance/verbs" >"$TMP/output" 2>&1 ||
	fail "exit status $?: $(tail -n 60 "$TMP/output")"
grep -q '^\[  PASSED  \] [0-9]* test' "$TMP/output" || fail "nothing ran: $(cat "$TMP/output")"
cat "$TMP/output"
