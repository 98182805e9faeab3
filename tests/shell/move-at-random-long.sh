# SPDX-License-Identifier: MIT
# tier: long
# presets: dev asan
# timeout: 3600
# processors: 2
# At a random moment of a move of memory, of a file, or of one with --post-copy, somebody is killed,
# or stopped for a while, or a line is cut: one donor has the region in the end, with every write
# that was answered, and its borrower has no error.  A file whose donor is killed while it is
# written begins a new epoch: then it has every write that was flushed.
# WEFT_ROUNDS: of each kind (12); WEFT_KINDS: some of them; WEFT_SEED.
# shellcheck disable=SC2034,SC2154 # move-faults.sh uses them, one_of sets them
. "${BASH_SOURCE[0]%/*}/../move-faults.sh"
in_net_of_its_own "${BASH_SOURCE[0]}"
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdcopy python3

seed=${WEFT_SEED:-$RANDOM} rounds=${WEFT_ROUNDS:-12}
read -ra kinds <<<"${WEFT_KINDS:-memory file post-copy}"
echo "seed $seed"
RANDOM=$seed
machines
support=$WEFT_SRC/tests/support step=random

# one_of VARIABLE WORD…: sets it to one of them.
one_of() { printf -v "$1" %s "${@:RANDOM % ($# - 1) + 2:1}"; }

# round KIND
round() {
	local kind=$1 ms moved_in began r=0 left=() faults=()
	port=$((${port:-7000} + 1)) stop=$TMP/stop-$port socket=$TMP/s-$port stepper=giver
	KIND=$kind SIZE=8M OPTIONS=(--bandwidth 4M) FILES=$TMP/files-$port
	[[ $kind != post-copy ]] || OPTIONS+=(--post-copy)
	mkdir -p "$FILES/taken"
	truncate -s $SIZE "$FILES/given"
	: >"$TMP/bridge"
	: >"$TMP/moved"
	donor giver
	donor taker
	bridge
	wait_for -t 60 test -S "$socket"
	[[ $kind != file ]] || left=(--left "$TMP/left" --flush 20)
	python3 "$support/checked-writer.py" "$socket" "$stop" 1 40 --patience 120 "${left[@]}" \
		>"$TMP/writer" 2>&1 &
	PIDS[writer]=$!
	wait_for -t 60 test -e "$stop.began"
	# Not for so long that what a post-copy move lacks is an error.
	one_of seconds 1 3 6
	one_of kind blackhole unreachable
	ms=$((RANDOM % 2600))
	faults=("${FAULTS[@]}")
	[[ $KIND != file ]] || mapfile -t faults < <(printf '%s\n' "${FAULTS[@]}" | grep -v kill-b)
	one_of fault "${faults[@]}"
	move
	sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
	fails
	moved_in=$SECONDS began=$SECONDS
	until gone "${PIDS[mover]}" && wait "${PIDS[mover]}"; do
		((SECONDS < began + 90)) || troubles "it has not moved"
		! gone "${PIDS[mover]}" || move
		sleep 0.2
	done
	moved_in=$((SECONDS - moved_in))
	has_moved || troubles "it is not there"
	touch "$stop"
	until gone "${PIDS[writer]}"; do
		((SECONDS < began + 150)) || troubles "the writer waits"
		sleep 0.1
	done
	wait "${PIDS[writer]}" || r=$?
	echo "$KIND $fault at $ms ms, $seconds s $kind: there after $moved_in s;" \
		"$(tail -n 1 "$TMP/writer")"
	weft detach "box-$port" >"$TMP/detached" 2>&1 || [[ $r = 3 ]] ||
		troubles "$(<"$TMP/detached")"
	wait "${PIDS[borrower]}" || :
	if [[ $r = 3 ]]; then
		# Only a giver that was killed is a reason.
		[[ $KIND = file && $fault = kill-giver ]] || troubles "the writer has an error"
		wait_for -t 60 nbdcopy "nbd://10.77.${NUMBERS[taker]}.2:$port/r" "$TMP/image"
		python3 "$support/checked-left.py" "$TMP/left" "$TMP/image" || troubles "contents"
	else
		((r == 0)) || troubles "the writer"
	fi
	kill "${PIDS[giver]}" "${PIDS[taker]}"
	wait "${PIDS[giver]}" || troubles "the giver ends with $?"
	wait "${PIDS[taker]}" || troubles "the taker ends with $?"
}

for ((n = 1; n <= rounds; n++)); do
	for what in "${kinds[@]}"; do round "$what"; done
done
