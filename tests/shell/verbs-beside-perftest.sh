# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: release only
# serial
# processors: 2
# One-sided reads and writes keep up with perftest over soft-RoCE in the testbed
# (perf/suites/verbs.c has the bounds): with events on a processor that counts instructions, where
# nothing else changes the figures; polling on two, where the device has one to itself.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

# beside REGEX OPTION…
beside() {
	"$WEFT_SRC/tests/testbed/run" "${@:2}" --timeout 400 -- "$WEFT_BIN/weft-perf" \
		--quick "$1" >"$TMP/out" 2>&1 ||
		{ cat "$TMP/out" && fail "a bound was missed in each of four tries"; }
	cat "$TMP/out"
	grep -q '^held' "$TMP/out" || fail "no bound was looked at"
}
beside '^verbs/(read-4K-x1|.*-x16|.*-1M-x4)-event/(weft-hot|perftest)' --instructions
beside '^verbs/.*-poll/(weft-hot|perftest)' --cpus 2
exit 0
