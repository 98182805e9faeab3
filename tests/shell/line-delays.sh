# SPDX-License-Identifier: MIT
# serial
# A line's delay is never shorter than it says, and not much longer; jitter spreads it and keeps the
# order.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line

measure() { # OPTION…: sets us, ascending: round trips
	mapfile -t us < <(line "$@" rtt 40 | sort -n)
	((${#us[@]} == 40)) || fail "only ${#us[@]} answers"
}

# A machine that is busy with something else makes an answer late, but not each of them.
for try in 1 2 3 4; do
	measure --delay 10ms
	((us[0] >= 20000)) ||
		fail "an answer after ${us[0]} us, which is less than two delays of 10 ms"
	echo "two delays of 10 ms: ${us[0]} us at least, ${us[20]} us the median"
	((us[4] >= 22000)) || break
done
((try < 4)) || fail "nine of ten answers took more than ${us[4]} us, $try times"

for try in 1 2 3 4; do
	measure --delay 10ms --jitter 5ms
	((us[0] >= 10000)) || fail "an answer after ${us[0]} us, which is less than 5 ms each way"
	echo "with a jitter of 5 ms: ${us[0]} us to ${us[39]} us"
	((us[39] > 22000)) ||
		fail "no answer took longer than ${us[39]} us; up to 30000 us are possible"
	((us[0] >= 18000)) || break
done
((try < 4)) || fail "no answer took less than ${us[0]} us; from 10000 us on is possible"

line --delay 20ms --jitter 20ms blast 500 >"$TMP/arrived"
seq 0 499 | cmp - "$TMP/arrived" || fail "packets overtook one another, or were lost"
