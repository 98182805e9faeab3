# SPDX-License-Identifier: MIT
# 1500 kills of a bridge with a cache file, and the model of a cache in a file, many times.
# presets: dev asan
# tier: long
# timeout: 1500
. "${BASH_SOURCE[0]%/*}/../lib.sh"

WEFT_KILLS=1500 "$WEFT_BUILD/tests/unit/cache-file" || fail "kills"
for _ in {1..20}; do
	seed=$(($(od -An -N4 -tu4 /dev/urandom | tr -d ' ') | 1 << 28))
	WEFT_SEED=$seed WEFT_OPS=20000 "$WEFT_BUILD/tests/unit/cache-model" || fail "seed $seed"
done
