# SPDX-License-Identifier: MIT
# tier: long
# timeout: 280
# processors: 2
# Over soft-RoCE, too, regions of a striped device are refused in another order, or alone, until
# somebody says that the contents are given up.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 240 <<'END'
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory a=8M --memory b=8M --lease 5
a=weft://$RDMA_IP:$PORT/a b=weft://$RDMA_IP:$PORT/b
map() { weft attach "$@" --name x --socket "$TMP/s" --transport rdma; }
refused() { # TEXT URI…
	! map "${@:2}" >"$TMP/out" 2>&1 || fail "taken: ${*:2}"
	grep -q "$1" "$TMP/out" || fail "$(cat "$TMP/out")"
}
map "$a" "$b" | tee "$TMP/out"
grep -q "transport rdma" "$TMP/out" || fail "not over RDMA"
weft detach x
refused "is part [12] of 2 of a striped device (stripes of 256 KiB), not part [12] of 2: give the donors in the order" "$b" "$a"
refused "region 'b' is part 2 of 2 .*, not a whole device" "$b"
map "$a" "$b" >/dev/null || fail "not in the right order"
weft detach x
map "$b" "$a" --new-contents >/dev/null || fail "not with new contents"
weft detach x
refused "is part [12] of 2 .*in the order" "$a" "$b"
END
