# tier: long
# timeout: 600
# presets: dev asan tsan
# The conformance suite over soft-RoCE, in the testbed: with the region registered whole, and in 32 pieces.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

run() { # CHUNK
	"$WEFT_SRC/tests/testbed/run" --timeout 280 -- env WEFT_CHUNK="$1" \
		"$WEFT_BUILD/tests/conformance/verbs" >"$TMP/output" 2>&1 || fail "chunks of $1: $(tail -n 60 "$TMP/output")"
	grep -q '^\[  PASSED  \] [0-9]* test' "$TMP/output" || fail "nothing ran: $(cat "$TMP/output")"
	cat "$TMP/output"
}
run 0
run 262144 >/dev/null
