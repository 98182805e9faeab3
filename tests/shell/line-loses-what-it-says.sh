# SPDX-License-Identifier: MIT
# A line loses the share of the packets that it was told to, counts them, and loses the same ones
# with the same seed.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool jq

# Below the least MTU of IPv6 nobody but us sends anything.
lossy() { line --mtu 1000 --loss 5% --stats "$TMP/stats" "$@" blast 10000; }
lossy --seed 7 >"$TMP/one"
lost=$(jq '.near_to_far.lost' "$TMP/stats")
echo "$lost of 10000 packets lost"
((lost + $(wc -l <"$TMP/one") == 10000)) || fail "$lost were lost, $(wc -l <"$TMP/one") arrived"
# Five standard deviations from 500 are 109.
((lost > 390 && lost < 610)) || fail "$lost of 10000 packets"
lossy --seed 7 >"$TMP/two"
cmp "$TMP/one" "$TMP/two" || fail "another loss with the same seed"
lossy --seed 8 >"$TMP/two"
! cmp -s "$TMP/one" "$TMP/two" || fail "the same loss with another seed"

# Segments of TCP that came as one train are lost one by one; the connection mends it, or the probe
# would not end.
line --loss 1% --stats "$TMP/stats" stream 16 >"$TMP/rate"
jq -e '.near_to_far | .packets > .frames * 2 and .lost > (.packets + .lost) * 0.007 and
	.lost < (.packets + .lost) * 0.013' "$TMP/stats" >/dev/null || fail "$(cat "$TMP/stats")"
