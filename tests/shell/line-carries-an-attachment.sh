# SPDX-License-Identifier: MIT
# weft over a line that delays, and loses a packet in 200: every byte arrives, both ways.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool nbdcopy

on_a_line <<'END'
weft attach "$uri" --socket "$TMP/s"
nbdcopy --flush "$TMP/data" "nbd+unix:///?socket=$TMP/s"
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/back"
weft detach r
END
random_file "$TMP/data" $((16 << 20))
weft line --delay 2ms --jitter 500us --loss 0.5% --seed 3 --stats "$TMP/stats" bash "$TMP/inside" ||
	fail "exit status $?: $(cat "$TMP/donor.log")"
cmp "$TMP/data" "$TMP/back" || fail "other bytes came back"
grep -q '"lost": [1-9]' "$TMP/stats" || fail "nothing was lost: $(cat "$TMP/stats")"
