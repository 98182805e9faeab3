# SPDX-License-Identifier: MIT
# Regions that share as little bandwidth as there may be come in turn: none is silent for so long
# that the donor which gives it takes the move for given up.
# tier: long
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"

start_donor --take 4M --listen 127.0.0.1:0
taker=weft://$(sed -n 's/^listening on //p' "$DONOR_LOG")
start_donor --memory a=1M --memory b=1M --memory c=1M
giver=weft://127.0.0.1:$PORT
weft move --bandwidth 64K "$giver"/{a,b,c} "$taker" >"$TMP/out" 2>"$TMP/err" ||
	fail "$(cat "$TMP/out" "$TMP/err" "$DONOR_LOG")"
cat "$TMP/out"
(($(grep -c "^moved $giver/" "$TMP/out") == 3)) || fail "$(<"$TMP/out")"
