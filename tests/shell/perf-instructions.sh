#!/bin/bash
# SPDX-License-Identifier: MIT
# The hot paths take no more instructions an operation than perf/count/baseline.json says; more are
# noticed.
# presets: release only
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool valgrind jq column

"$WEFT_SRC/perf/count/run" --bin "$WEFT_BIN" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
cat "$TMP/out"
[[ $(grep -cE '^(engine|lane|verbs)-(read|write)-[0-9]+ ' "$TMP/out") = 9 ]] || fail "not all cases"

echo "== with a baseline that is 10 % lower it fails, and says what to do"
mkdir -p "$TMP/tree/perf/count"
cp "$WEFT_SRC/perf/count/run" "$TMP/tree/perf/count/"
jq '.counts |= map_values(. * 0.9)' "$WEFT_SRC/perf/count/baseline.json" \
	>"$TMP/tree/perf/count/baseline.json"
! "$TMP/tree/perf/count/run" --bin "$WEFT_BIN" >"$TMP/out" 2>&1 ||
	fail "nothing was noticed: $(cat "$TMP/out")"
grep -q '^engine-read-16 .* MORE$' "$TMP/out" && grep -q 'perf/count/run --renew' "$TMP/out" ||
	fail "$(cat "$TMP/out")"
