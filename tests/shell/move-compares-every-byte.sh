# SPDX-License-Identifier: MIT
# Bits that are flipped on the way are found by their hashes: those chunks are copied again; with
# ever more of them the move ends with the reason, and nothing has changed.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3 nbdcopy jq

start_donor --memory r=64M
giver=$PORT
random_file "$TMP/contents" 64M
nbdcopy "$TMP/contents" "nbd://127.0.0.1:$giver/r"

through() { # TIMES: sets `proxy`, the port of a proxy that flips so many bits
	rm -f "$TMP/port"
	python3 "$WEFT_SRC/tests/support/flipping-proxy.py" "$giver" 100000 "$1" >"$TMP/port" &
	wait_for test -s "$TMP/port"
	proxy=$(cat "$TMP/port")
}

start_donor --take 1G --listen 127.0.0.1:"$(free_port)"
taker=$(sed -n 's/^listening on 127.0.0.1:\([0-9]*\)$/\1/p' "$DONOR_LOG")

echo '== without end'
through 1000000
if weft move "weft://127.0.0.1:$proxy/r" "weft://127.0.0.1:$taker" >"$TMP/move" 2>&1; then
	fail "it moved: $(cat "$TMP/move")"
fi
grep -q 'came with another hash than they have at the donor, 3 times' "$TMP/move" ||
	fail "$(cat "$TMP/move")"
weft list "weft://127.0.0.1:$taker" | grep -q '^no regions' || fail "something stayed"
nbdcopy "nbd://127.0.0.1:$giver/r" "$TMP/back"
cmp "$TMP/contents" "$TMP/back" || fail "other bytes at the giver"

echo '== five times'
through 5
weft move --json "weft://127.0.0.1:$proxy/r" "weft://127.0.0.1:$taker" >"$TMP/move" 2>&1 ||
	fail "$(cat "$TMP/move")"
cat "$TMP/move"
nbdcopy "nbd://127.0.0.1:$taker/r" "$TMP/back"
cmp "$TMP/contents" "$TMP/back" || fail "other bytes at the taker"
copied=$(tail -n 1 "$TMP/move" | jq .copied_bytes)
((copied > 64 << 20 && copied < 66 << 20)) || fail "$copied bytes were copied"
