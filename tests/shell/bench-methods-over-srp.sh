# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# weft bench --methods measures the library over SRP, each kind of work: the region's name as a
# target is another one after each writer.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq

in_testbed --timeout 380 --memory 2G <<'END'
weft bench --methods=library --transports srp --at "$RDMA_IP" --quick --span 16M --out "$TMP/out" \
	>"$TMP/said" 2>&1 || fail "$(cat "$TMP/said")"
jq -e '[.cells[] | select(.transport == "srp" and (.works |
		has("read") and has("random_read") and has("write") and has("random_write") and
		has("fits") and has("exceeds") and has("update"))) | .mode] | sort ==
	["direct", "managed"]' "$TMP/out/report.json" >/dev/null ||
	fail "$(jq -c '.not_measured, (.cells[] | [.method, .mode, .transport, (.works | keys)])' \
		"$TMP/out/report.json")"
END
