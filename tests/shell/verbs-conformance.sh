# SPDX-License-Identifier: MIT
# tier: long
# timeout: 3600
# presets: dev asan tsan
# processors: 2
# The conformance suite over soft-RoCE, in the testbed: with the region registered whole, and in 32
# pieces; and on a region of 3 GiB, which is more than one registration; the C API; and with keys.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

# Each bit of each handshake message is flipped: that takes minutes under tsan in emulation.
limit=280
[[ $WEFT_PRESET != tsan ]] || limit=900
suite() { # PROGRAM [VARIABLE=VALUE…]
	conformance_in_testbed "$limit" --memory 1G -- \
		env "${@:2}" "$WEFT_BUILD/tests/conformance/$1"
}
suite libweft >/dev/null
grep -q '^\[  PASSED  \] 6 test' "$TMP/output" || fail "libweft: $(cat "$TMP/output")"
suite verbs-keys WEFT_SUITE=1 >/dev/null
suite verbs
suite verbs WEFT_CHUNK=262144 >/dev/null
[[ $WEFT_PRESET = tsan ]] ||
	conformance_in_testbed 1700 --memory 7G -- env WEFT_REGION=$((3 << 30)) \
		"$WEFT_BUILD/tests/conformance/verbs"
