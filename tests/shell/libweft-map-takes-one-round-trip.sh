# SPDX-License-Identifier: MIT
# The first access of a map that was just made takes one round trip, although a new connection sends
# no more than ten packets at once: far away a map's own units are no larger, and the rest of 64 KiB
# comes along, and is not fetched again.  On a line where a round trip takes 300 ms; the best of
# several tries counts, since a busy machine makes each of them later.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line

ROUND_TRIP_MS=300 TRIES=5

on_a_line <<'END'
now_ms() { echo $(($(date +%s%N) / 1000000)); }
ask() { # WHAT COMMAND: how long the answer takes
	local since said
	since=$(now_ms)
	echo "$2" >&"${IO[1]}"
	read -r said <&"${IO[0]}"
	[[ $said = differs ]] # it is zeros
	echo "$1 $(($(now_ms) - since))" >>"$TMP/took"
}
for ((i = 0; i < TRIES; i++)); do
	coproc IO { exec "$WEFT_BUILD/tests/libweft-io" -u 0 -m paged "$uri"; }
	pid=$IO_PID
	read -r said <&"${IO[0]}"
	[[ $said = ok ]]
	ask first "mread 0 $((i * 65536 + 20480)) 4096"
	ask unit "mread 0 $((i * 65536 + 16384)) 4096"
	sleep 1 # three round trips
	ask along "mread 0 $((i * 65536)) 65536"
	eval "exec ${IO[1]}>&-"
	wait "$pid"
done
END
export TMP WEFT_BUILD TRIES
# shellcheck disable=SC2016
weft line --delay $((ROUND_TRIP_MS / 2))ms bash -c \
	'nsenter --net="$WEFT_LINE_FAR" sysctl -qw net.ipv4.tcp_congestion_control=reno 2>/dev/null
	exec bash "$TMP/inside"' 2>"$TMP/said" || {
	! grep -q 'cannot map' "$TMP/said" || skip "$(cat "$TMP/said")"
	fail "exit status $?: $(cat "$TMP/said" "$TMP/donor.log")"
}

best() {
	awk -v what="$1" '$1 == what { print $2 }' "$TMP/took" | sort -n | head -n 1
}
echo "the first access: $(best first) ms; its unit: $(best unit) ms; the rest: $(best along) ms"
(($(best first) >= ROUND_TRIP_MS)) || fail "the line is shorter than it says: $(cat "$TMP/took")"
(($(best first) < ROUND_TRIP_MS * 12 / 10)) || fail "it takes longer: $(cat "$TMP/took")"
(($(best unit) < ROUND_TRIP_MS / 10)) || fail "it is fetched again: $(cat "$TMP/took")"
(($(best along) < ROUND_TRIP_MS / 10)) || fail "it is fetched again: $(cat "$TMP/took")"
