# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan tsan
# processors: 2
# The conformance suite at Linux's SRP target, over a disk of 512-byte blocks with a write cache,
# one of 4096-byte blocks without, and one that may only be read; and at weft's own target.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 850 <<'END'
. tests/srpt.sh
suite() { # NAME PROGRAM [VARIABLE=VALUE…]
	SECONDS=0
	echo "== $1"
	timeout 300 env "${@:3}" "$WEFT_BUILD/tests/conformance/$2" 2>&1 | tee "$TMP/said" ||
		fail "$1: exit status ${PIPESTATUS[0]}"
	grep -q '^\[  PASSED  \] [0-9]* test' "$TMP/said" || fail "$1: nothing ran"
	echo "took $SECONDS s: $1"
}
lio() { # NAME LUN [VARIABLE=VALUE…]
	suite "$1" srp WEFT_SRP="$RDMA_IP $SRPT_PORT $SRPT_GUID/$2" WEFT_SRP_FILE="$TMP/$1" \
		WEFT_SRP_PORT="$srpt_tpg/enable" "${@:3}"
}
suite own srp-donor
suite own-read-only srp-donor WEFT_SRP_READ=1
srpt_disk small $((8 << 20))
srpt_disk large $((8 << 20)) 4096
srpt_disk read-only $((8 << 20))
put $srpt_core/fileio_0/small/attrib/emulate_write_cache 1
srpt_serve fileio_0/small fileio_0/large fileio_0/read-only
put "$srpt_tpg/acls/$RDMA_IP/lun_2/write_protect" 1
lio small 0
grep -q 'OK .* a_fua_write_is_a_write' "$TMP/said" || fail "no FUA at a disk with a cache"
lio read-only 2 WEFT_SRP_READ=1
lio large 1
END
grep '^took' "$TMP/output"
