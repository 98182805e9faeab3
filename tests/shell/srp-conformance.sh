# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan tsan
# processors: 2
# The conformance suite at Linux's SRP target, over a disk of 512-byte blocks with a write cache,
# and one of 4096-byte blocks without.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 800 <<'END'
. tests/srpt.sh
suite() { # NAME LUN
	env WEFT_SRP="$RDMA_IP $SRPT_PORT $SRPT_GUID/$2" WEFT_SRP_FILE="$TMP/$1" \
		WEFT_SRP_PORT="$srpt_tpg/enable" "$WEFT_BUILD/tests/conformance/srp"
}
srpt_disk small $((8 << 20))
srpt_disk large $((8 << 20)) 4096
put $srpt_core/fileio_0/small/attrib/emulate_write_cache 1
srpt_serve fileio_0/small fileio_0/large
suite small 0
suite large 1
END
[[ $(grep -c '^\[  PASSED  \] [0-9]* test' "$TMP/output") = 2 ]] || fail "$(cat "$TMP/output")"
