# SPDX-License-Identifier: MIT
# Copies against an array, with fresh seeds: a million requests while donors are in trouble.
# tier: long
# presets: dev asan
# timeout: 1800
. "${BASH_SOURCE[0]%/*}/../lib.sh"

ops=1000000
[[ $WEFT_PRESET == dev ]] || ops=200000
WEFT_OPS=$ops "$WEFT_BUILD/tests/unit/copies-model" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep -E 'WEFT_SEED|faults' "$TMP/out"
