# SPDX-License-Identifier: MIT
# A map against plain arrays, with a fresh seed, while its donor has all kinds of trouble: a million
# operations in each mode.
# tier: long
# presets: dev asan tsan
# timeout: 1800
# processors: 2
. "${BASH_SOURCE[0]%/*}/../lib.sh"

ops=1000000
[[ $WEFT_PRESET == dev ]] || ops=300000
WEFT_OPS=$ops "$WEFT_BUILD/tests/unit/map-model" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep -v '^$' "$TMP/out"
