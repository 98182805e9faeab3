# tier: long
# timeout: 900
# presets: release only
# serial
# One-sided reads and writes keep up with perftest over soft-RoCE in the testbed (perf/suites/verbs.c has the bounds):
# bandwidth and polling on two processors, where the device has one to itself; events on one, where no wake-up crosses processors.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

# beside CPUS REGEX
beside() {
	"$WEFT_SRC/tests/testbed/run" --cpus "$1" --timeout 400 -- "$WEFT_BIN/weft-perf" --quick "$2" >"$TMP/out" 2>&1 ||
		{ cat "$TMP/out" && fail "a bound was missed in each of four tries"; }
	cat "$TMP/out"
	grep -q '^held' "$TMP/out" || fail "no bound was looked at"
}
beside 1 '^verbs/read-4K-x1-event/(weft-hot|perftest)'
beside 2 '^verbs/.*(4K-x1-poll|64K-x16.*|1M-x4.*)/(weft-hot|perftest)'
exit 0
