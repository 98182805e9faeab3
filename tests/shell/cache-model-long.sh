# SPDX-License-Identifier: MIT
# The cache against an array, with fresh seeds: a million requests.
# tier: long
# presets: dev asan
# timeout: 900
. "${BASH_SOURCE[0]%/*}/../lib.sh"

ops=1000000
[[ $WEFT_PRESET == dev ]] || ops=300000
WEFT_OPS=$ops "$WEFT_BUILD/tests/unit/cache-model" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep WEFT_SEED "$TMP/out"
