# SPDX-License-Identifier: MIT
# presets: dev asan
# timeout: 240
# Donors, bridges and the holder are killed at random, leases lapse, others write, files are put
# back: what clients are told is true (tests/torture).
. "${BASH_SOURCE[0]%/*}/../lib.sh"

mkdir "$TMP/torture"
timeout -k 5 3500 "$WEFT_BUILD/tests/torture" \
	--rounds "${WEFT_ROUNDS:-20}" ${WEFT_SEED:+--seed "$WEFT_SEED"} "$TMP/torture" ||
	fail "exit status $?"
