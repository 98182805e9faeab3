# SPDX-License-Identifier: MIT
# From the connect to the first bytes of a READ: TCP's handshake, then everything up to the grant,
# then the READ.  On a line where a round trip takes 200 ms; the best of several tries counts, since
# a busy machine makes each of them later, and the first that is good ends them.  weft attach is
# there after two round trips, and after two more where further lanes join.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line

ROUND_TRIP_MS=200 TRIES=6

on_a_line <<'END'

read_once() {
	coproc IO { exec "$WEFT_BUILD/tests/libweft-io" -n 1 "$uri"; }
	local pid=$IO_PID said
	echo "read 0 0 4096" >&"${IO[1]}"
	read -r said <&"${IO[0]}"
	[[ $said = ok ]]
	read -r said <&"${IO[0]}"
	took read
	[[ $said = differs ]] # it is zeros
	eval "exec ${IO[1]}>&-"
	wait "$pid"
}
took() {
	echo "$1 $((($(date +%s%N) - start) / 1000000))" >>"$TMP/took"
}

# Whether a try took less than one round trip more than it has to.
is_good() { # WHAT ROUND-TRIPS
	awk -v what="$1" -v most="$((($2 + 1) * ROUND_TRIP_MS))" \
		'$1 == what && $2 < most { found = 1 } END { exit !found }' "$TMP/took"
}
for ((i = 0; i < TRIES; i++)); do
	start=$(date +%s%N)
	((i > 0)) && is_good read 3 || read_once
	for lanes in 1 4; do
		((i > 0)) && is_good "attach-$lanes" $((lanes > 1 ? 4 : 2)) && continue
		start=$(date +%s%N)
		weft attach "$uri" --lanes "$lanes" --socket "$TMP/s" >"$TMP/attached" 2>&1
		took "attach-$lanes"
		weft detach r >"$TMP/detached"
	done
done
END
export TMP WEFT_BUILD TRIES ROUND_TRIP_MS
weft line --delay $((ROUND_TRIP_MS / 2))ms bash "$TMP/inside" ||
	fail "exit status $?: $(cat "$TMP/donor.log" "$TMP/attached")"

takes() { # WHAT ROUND-TRIPS
	local best
	best=$(awk -v what="$1" '$1 == what { print $2 }' "$TMP/took" | sort -n | head -n 1)
	echo "$1: $best ms, of which $2 round trips are $(($2 * ROUND_TRIP_MS)) ms"
	((best >= $2 * ROUND_TRIP_MS)) ||
		fail "the line is shorter than it says: $(cat "$TMP/took")"
	((best < ($2 + 1) * ROUND_TRIP_MS)) ||
		fail "$1 takes more than $2 round trips: $(cat "$TMP/took")"
}
takes read 3
takes attach-1 2
takes attach-4 4
