# SPDX-License-Identifier: MIT
# tier: long
# timeout: 2400
# presets: dev asan tsan
# processors: 2
# The conformance suite over soft-RoCE, in the testbed: with the region registered whole, and in 32
# pieces; and on a region of 3 GiB, which is more than one registration; and the C API.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

"$WEFT_SRC/tests/testbed/run" --timeout 280 --memory 1G \
	-- "$WEFT_BUILD/tests/conformance/libweft" >"$TMP/output" 2>&1 ||
	fail "libweft: $(tail -n 60 "$TMP/output")"
grep -q '^\[  PASSED  \] 6 test' "$TMP/output" || fail "libweft: $(cat "$TMP/output")"
run() { # CHUNK [SECONDS MEMORY REGION]
	"$WEFT_SRC/tests/testbed/run" --timeout "${2-280}" --memory "${3-1G}" \
		-- env WEFT_CHUNK="$1" WEFT_REGION="${4-$((8 << 20))}" \
		"$WEFT_BUILD/tests/conformance/verbs" >"$TMP/output" 2>&1 ||
			fail "chunks of $1: $(tail -n 60 "$TMP/output")"
	grep -q '^\[  PASSED  \] [0-9]* test' "$TMP/output" ||
		fail "nothing ran: $(cat "$TMP/output")"
	cat "$TMP/output"
}
run 0
run 262144 >/dev/null
[[ $WEFT_PRESET = tsan ]] || run 0 1700 7G $((3 << 30))
