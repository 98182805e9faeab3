# SPDX-License-Identifier: MIT
# As many records as 64 GiB are in requests of 4 KiB go through one TLS session, with the new keys
# that it takes, and none ends it.  Sanitizers are too slow for that, and unit/tls has them.
# tier: long
# presets: dev release only
# timeout: 900
. "${BASH_SOURCE[0]%/*}/../lib.sh"

WEFT_RECORDS=$(((1 << 24) + 1000)) "$WEFT_BUILD/tests/unit/tls" >"$TMP/out" 2>&1 ||
	fail "$(cat "$TMP/out")"
grep -q '^16778216 records, [0-9]\{1,5\} under the last key' "$TMP/out" ||
	fail "there was no new key: $(cat "$TMP/out")"
