# SPDX-License-Identifier: MIT
# A region moves among three donors, at random, under writers and a reader that check, while donors
# are killed or make way for their successors, moves are called off, their movers are killed, and
# the bridge is killed and taken over: no error, no wrong byte, and one donor that has the region.
# timeout: 300
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

# WEFT_OPERATIONS: goes on until so many were done, as fast as that is; WEFT_ROUNDS: for so many.
seed=${WEFT_SEED:-$RANDOM} rounds=${WEFT_ROUNDS:-12} operations=${WEFT_OPERATIONS:-} nr_writers=3
pace=(150)
[[ ! $operations ]] || pace=(--operations "$((operations / nr_writers))")
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
	weft attach "$(uri 0)" --name box --socket "$TMP/box" --timeout 60 --dead-timeout 60 \
		--foreground >>"$TMP/bridge" 2>&1 &
	bridge=$!
}
bridge
wait_for -t 60 test -S "$TMP/box"
weft attach "$(uri 0)" --shared --name reader --socket "$TMP/reader" --timeout 60 \
	--dead-timeout 60 >"$TMP/bridge" 2>&1
support=$WEFT_SRC/tests/support users=()
for ((i = 0; i < nr_writers; i++)); do
	python3 "$support/checked-writer.py" "$TMP/box" "$TMP/stop" "$seed" "${pace[@]}" \
		--patience 120 --part "$i/$nr_writers" >"$TMP/user.$i" 2>&1 &
	users+=($!)
done
wait_for -t 60 test -e "$TMP/stop.began"
python3 "$support/checked-reader.py" "$TMP/reader" "$TMP/stop" "$seed" 100 >"$TMP/user.r" 2>&1 &
users+=($!)

troubles() {
	tail -n 40 "$TMP"/user.* "$TMP/bridge" "${logs[@]}" "$TMP/move" >&2
	fail "seed $seed, round $round: $*"
}
# A bridge that is started while the region goes over may end, and is started again.
lanes_are_back() {
	local said
	! gone "$bridge" || bridge
	said=$(weft status 2>/dev/null) || return 1
	[[ $(grep -c ' ready' <<<"$said") = 2 && $said != *reconnecting* ]]
}
ended() { # WHO…: all of them
	local user
	for user; do gone "$user" || return 1; done
}

at=0
for ((round = 1; operations || round <= rounds; round++)); do
	to=$(((at + 1 + RANDOM % 2) % 3)) event=$((RANDOM % 7)) victim=$((RANDOM % 2 ? at : to))
	((round % 50)) && [[ $operations ]] || echo "== round $round: from $at to $to, event $event"
	timeout 120 weft move "$(uri "$at")" "$(uri "$to")" >"$TMP/move" 2>&1 &
	mover=$!
	sleep "0.$((RANDOM % 5))" # the moment is random
	case $event in
	0 | 1)
		signal=KILL
		((event == 0)) || signal=USR2
		kill -s "$signal" "${pids[$victim]}"
		wait "${pids[$victim]}" || :
		donor "$victim"
		;;
	2) kill -INT "$mover" 2>/dev/null || : ;;
	3) kill -KILL "$mover" 2>/dev/null || : ;;
	4)
		kill -KILL "$bridge"
		wait "$bridge" || :
		bridge
		;;
	esac
	wait "$mover" || :
	for ((i = 0; i < 600; i++)); do
		if find_it && lanes_are_back; then break; fi
		sleep 0.1
	done
	find_it || troubles "it is at '$at'"
	lanes_are_back || {
		weft status --explain
		troubles "a lane is not back"
	}
	! ended "${users[nr_writers]}" || troubles "the reader ended"
	[[ $operations ]] || ! ended "${users[0]}" || troubles "a writer ended"
	moves=$round
	if ended "${users[@]::nr_writers}"; then break; fi
done
touch "$TMP/stop"
for user in "${users[@]}"; do wait "$user" || troubles "a user"; done
cat "$TMP"/user.*
done=$(awk '{ for (i = 2; i <= NF; i++) if ($i ~ /^(writes|reads),/) n += $(i - 1) }
	END { print n + 0 }' "$TMP"/user.*)
echo "$done operations in $moves rounds, no error and no other byte"
[[ ! $operations ]] || ((done >= operations)) || fail "that is too few"
weft status box | head -n 20
weft detach reader
weft detach box
wait "$bridge" || :
