# SPDX-License-Identifier: MIT
# weft over a line that delays, and loses a packet in 200: every byte arrives, both ways.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool nbdcopy

cat >"$TMP/inside" <<'END'
set -euo pipefail
nsenter --net="$WEFT_LINE_FAR" weft-serve --listen "$WEFT_LINE_FAR_IP:0" --allow-insecure \
	--memory r=16M >"$TMP/donor.log" 2>&1 &
donor=$!
for ((i = 0; i < 600; i++)); do
	! grep -qx ready "$TMP/donor.log" || break
	sleep 0.05
done
uri=$(grep -o "weft://[^ ']*" "$TMP/donor.log" | head -n 1)
weft attach "$uri" --socket "$TMP/s"
nbdcopy --flush "$TMP/data" "nbd+unix:///?socket=$TMP/s"
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/back"
weft detach r
kill "$donor"
wait "$donor"
END
random_file "$TMP/data" $((16 << 20))
weft line --delay 2ms --jitter 500us --loss 0.5% --seed 3 --stats "$TMP/stats" bash "$TMP/inside" ||
	fail "exit status $?: $(cat "$TMP/donor.log")"
cmp "$TMP/data" "$TMP/back" || fail "other bytes came back"
grep -q '"lost": [1-9]' "$TMP/stats" || fail "nothing was lost: $(cat "$TMP/stats")"
