# SPDX-License-Identifier: MIT
# A region moves among three donors, at random, under a writer that checks, while donors are killed
# and start again, moves are called off, and the bridge is killed and taken over: no error, no wrong
# byte, and one donor that has the region.
# timeout: 300
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

seed=${WEFT_SEED:-$RANDOM} rounds=${WEFT_ROUNDS:-12}
echo "seed $seed"
RANDOM=$seed
ports=("$(free_port)" "$(free_port)" "$(free_port)") pids=() logs=()

donor() { # WHICH
	local what=()
	(($1 > 0)) || what=(--memory r=8M)
	start_donor --listen "127.0.0.1:${ports[$1]}" --take 64M "${what[@]}"
	pids[$1]=$DONOR_PID logs[$1]=$DONOR_LOG
}
for i in 0 1 2; do donor "$i"; done

uri() { echo "weft://127.0.0.1:${ports[$1]}/r"; }
lists() {
	weft list "weft://127.0.0.1:${ports[$1]}" 2>/dev/null | grep '^r ' | grep -vq 'moved to'
}
# Sets `at`: the donor that has the region.
find_it() {
	local i
	at=''
	for i in 0 1 2; do
		! lists "$i" || at+=$i
	done
	((${#at} == 1))
}

bridge() {
	weft attach "$(uri 0)" --name box --socket "$TMP/box" --foreground >>"$TMP/bridge" 2>&1 &
	bridge=$!
	wait_for test -S "$TMP/box"
}
bridge
python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/box" "$TMP/stop" "$seed" 400 \
	>"$TMP/writer" 2>&1 &
writer=$!
wait_for -t 60 test -e "$TMP/stop.began"

all_lanes_are_back() {
	weft status box | grep -q ' ready' && ! weft status box | grep -q reconnecting
}

troubles() {
	cat "$TMP/writer" "$TMP/bridge" "${logs[@]}" "$TMP/move" >&2
	fail "seed $seed, round $round: $*"
}

at=0
for ((round = 1; round <= rounds; round++)); do
	to=$(((at + 1 + RANDOM % 2) % 3)) event=$((RANDOM % 6)) victim=$((RANDOM % 2 ? at : to))
	echo "== round $round: from $at to $to, event $event"
	timeout 120 weft move "$(uri "$at")" "$(uri "$to")" >"$TMP/move" 2>&1 &
	mover=$!
	sleep "0.$((RANDOM % 5))" # the moment is random
	case $event in
	0 | 1)
		kill -KILL "${pids[$victim]}"
		wait "${pids[$victim]}" || :
		donor "$victim"
		;;
	2) kill -INT "$mover" 2>/dev/null || : ;;
	3) kill -KILL "$mover" 2>/dev/null || : ;;
	esac
	wait "$mover" || :
	wait_for -t 60 find_it
	for ((i = 0; i < 200; i++)); do
		if all_lanes_are_back; then break; fi
		sleep 0.1
	done
	all_lanes_are_back || {
		weft status --explain box
		troubles "a lane is not back"
	}
	kill -0 "$writer" || troubles "the writer ended"
done
touch "$TMP/stop"
wait "$writer" || troubles "the writer"
cat "$TMP/writer"
weft status box | head -n 20
weft detach box
wait "$bridge" || :
