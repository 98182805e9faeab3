# SPDX-License-Identifier: MIT
# A line lets no more through than its rate, and TCP gets nearly all of it; what finds the queue
# full is lost, and counted.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool jq

# A machine that is busy with something else makes it less, but not each time, and the less the
# longer a packet takes.
for try in {1..6}; do
	rate=$(line --rate 2Mbit --delay 1ms stream 1)
	echo "TCP got $rate bits a second of 2000000"
	# Of 1500 bytes 52 are headers.
	((rate < 2000000 * 1448 / 1500 + 20000)) || fail "more than the rate"
	((rate < 1600000)) || break
done
((rate >= 1600000)) || fail "less than four fifths of the rate, $try times"

# So slow that the queue is full, however long these packets take to be sent.
line --rate 250Kbit --queue 64K --stats "$TMP/stats" blast 5000 >"$TMP/arrived"
jq -e --argjson arrived "$(wc -l <"$TMP/arrived")" '.near_to_far | .dropped > 100 and .lost == 0 and
	.queue_peak_bytes > 60000 and .queue_peak_bytes <= 65536 and
	(.dropped + $arrived - 5000 | fabs) < 100' "$TMP/stats" >/dev/null || fail "$(cat "$TMP/stats")"
