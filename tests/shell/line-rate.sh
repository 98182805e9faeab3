# SPDX-License-Identifier: MIT
# A line lets no more through than its rate, and TCP gets nearly all of it; what finds the queue
# full is lost, and counted.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool jq

# A machine that is busy with something else makes it less, but not each time.
for try in 1 2 3 4; do
	rate=$(line --rate 40Mbit --delay 1ms stream 8)
	echo "TCP got $rate bits a second of 40000000"
	# Of 1500 bytes 52 are headers.
	((rate < 40000000 * 1448 / 1500 + 400000)) || fail "more than the rate"
	((rate < 32000000)) || break
done
((try < 4)) || fail "less than four fifths of the rate, $try times"

line --rate 1Mbit --queue 64K --stats "$TMP/stats" blast 5000 >"$TMP/arrived"
jq -e --argjson arrived "$(wc -l <"$TMP/arrived")" '.near_to_far | .dropped > 100 and .lost == 0 and
	.queue_peak_bytes > 60000 and .queue_peak_bytes <= 65536 and
	(.dropped + $arrived - 5000 | fabs) < 100' "$TMP/stats" >/dev/null || fail "$(cat "$TMP/stats")"
