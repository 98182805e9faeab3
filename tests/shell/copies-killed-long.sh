# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1800
# presets: dev
# The bridge is killed 100 times at random moments, and so are both donors, together or one, with
# copies that are current or behind; now and then a donor loses its memory as well.  Writers that
# send again what was not answered find every byte that was.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"
need_tool python3

rounds=${WEFT_ROUNDS:-100}
RANDOM=${WEFT_SEED:=$RANDOM}
echo "WEFT_SEED=$WEFT_SEED"
export COPY_LEASE=5
lend a
lend b
# Nothing is taken back: what is asked for waits until enough copies are there.
again() { mirror a b -- --dead-timeout 120 --wait 100 || fail "round $i: $(cat "$TMP/err")"; }
i=0
again
writers=()
for part in 0 1 2; do
	python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/s" "$TMP/stop" "$WEFT_SEED" 400 \
		--patience 120 --part "$part/3" >"$TMP/writer$part" 2>&1 &
	writers+=($!)
done
wait_for test -e "$TMP/stop.began"
nap() { sleep "$(awk -v n="$((RANDOM % $1))" 'BEGIN {print n / 1000}')"; }
kill_now() {
	local pid
	pid=$(status_of .pid)
	kill -KILL "$pid"
	wait_for gone "$pid"
}
degraded=0 forgotten=0
for ((i = 1; i <= rounds; i++)); do
	nap 300
	gone=()
	case $((RANDOM % 6)) in
	0 | 1) gone=(a) ;;
	2 | 3) gone=(b) ;;
	4) gone=(a b) ;;
	esac
	if ((${#gone[@]} == 1 && RANDOM % 3 == 0)) && is_whole; then
		forget "${gone[0]}"
		forgotten=$((forgotten + 1))
	else
		lose "${gone[@]}"
	fi
	# Before the loss is noted, or after that.
	nap $((RANDOM % 2 ? 100 : 8000))
	is_degraded && degraded=$((degraded + 1))
	kill_now
	if ((RANDOM % 2 && ${#gone[@]} < 2)); then
		# Without the one that was left behind; that one alone would not do.
		again &
		attaching=$!
		nap 1000
		for donor in "${gone[@]}"; do lend "$donor"; done
		wait "$attaching" || fail "round $i"
	else
		for donor in "${gone[@]}"; do lend "$donor"; done
		again
	fi
	for writer in "${writers[@]}"; do
		! gone "$writer" || fail "round $i: $(cat "$TMP"/writer*)"
	done
	((i % 10)) || wait_for -t 100 is_whole
done
wait_for -t 100 is_whole
touch "$TMP/stop"
for writer in "${writers[@]}"; do wait "$writer" || fail "$(cat "$TMP"/writer*)"; done
weft verify m >"$TMP/out" || fail "$(cat "$TMP/out")"
detach
cat "$TMP"/writer*
echo "$rounds kills of the bridge, $degraded with a copy behind; $forgotten times memory was lost"
((degraded > rounds / 20)) || fail "hardly ever was a copy behind"
