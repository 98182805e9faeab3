# SPDX-License-Identifier: MIT
# A donor is killed at each step of a move, and starts again: the same command ends the move, one
# donor has the region, with every write that was answered, and the borrower has no error.  So it is
# with a file, too, as long as nobody kills a donor that has it written: that begins a new epoch;
# and with a region that is served before it is copied.
# timeout: 900
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

GIVER=(give-begun give-frozen give-giving give-noted give-given give-noted-gone)
TAKER=(take-room take-prepared take-begun take-pulled take-frozen take-copied take-told take-owner
	take-serves take-told-served)

FILE_GIVER=(give-settled give-noted give-given give-noted-gone)
FILE_TAKER=(take-room take-prepared take-begun take-pulled take-frozen take-copied take-settled
	take-told take-owner)
POST_GIVER=(give-frozen give-noted give-given give-noted-gone)
POST_TAKER=(take-room take-begun take-frozen take-told take-owner take-serves take-filled
	take-told-served)
KIND='memory' FILES=
OPTIONS=()

# donor WHO [STEP]: the giver or the taker, at its port; with a step at which it is killed.
donor() {
	local what=(--memory r=4M)
	[[ $1 = giver ]] || what=(--take 64M)
	[[ $KIND$1 != filetaker ]] || what=(--take "$FILES/taken")
	[[ $KIND$1 != filegiver ]] || what=(--file r="$FILES/given")
	WEFT_STEP=${2:+$2=kill} start_donor --listen "127.0.0.1:${PORTS[$1]}" "${what[@]}"
	PIDS[$1]=$DONOR_PID LOGS[$1]=$DONOR_LOG
}
declare -A PORTS PIDS LOGS

move() {
	timeout 100 weft move "${OPTIONS[@]}" "weft://127.0.0.1:${PORTS[giver]}/r" \
		"weft://127.0.0.1:${PORTS[taker]}"
}

lists() { # WHO
	weft list "weft://127.0.0.1:${PORTS[$1]}" 2>/dev/null | grep '^r ' | grep -vq 'moved to'
}

has_moved() { lists taker && ! lists giver; }

at_step() { # WHO STEP
	local other=giver writer bridge mover stop="$TMP/stop-$2" socket="$TMP/s-$2"
	[[ $1 = taker ]] || other=taker
	echo "== $KIND: $1 at $2"
	FILES=$(mktemp -d "$TMP/files.XXXXXX")
	mkdir "$FILES/taken"
	truncate -s 4M "$FILES/given"
	rm -f "$stop" "$stop.began"
	PORTS=([giver]=$(free_port) [taker]=$(free_port))
	donor "$other"
	donor "$1" "$2"
	weft attach "weft://127.0.0.1:${PORTS[giver]}/r" --name "box-$2" --socket "$socket" \
		--foreground >"$TMP/bridge-$2" 2>&1 &
	bridge=$!
	wait_for test -S "$socket"
	python3 "$WEFT_SRC/tests/support/checked-writer.py" "$socket" "$stop" 1 500 \
		>"$TMP/writer-$2" 2>&1 &
	writer=$!
	wait_for -t 60 test -e "$stop.began"
	move >"$TMP/move-$2" 2>&1 &
	mover=$!
	wait_for -t 60 gone "${PIDS[$1]}"
	donor "$1"
	wait "$mover" || :
	for ((i = 0; i < 10; i++)); do
		if has_moved; then break; fi
		move >>"$TMP/move-$2" 2>&1 || sleep 1
	done
	touch "$stop"
	wait "$writer" || {
		cat "$TMP/writer-$2" "$TMP/move-$2" "${LOGS[giver]}" "${LOGS[taker]}"
		fail "$2: the writer"
	}
	cat "$TMP/writer-$2"
	has_moved || {
		cat "$TMP/move-$2" "${LOGS[giver]}" "${LOGS[taker]}"
		fail "$2: it did not move"
	}
	weft detach "box-$2"
	wait "$bridge" || :
	kill "${PIDS[@]}"
	wait "${PIDS[@]}" || :
}

if [[ ! ${WEFT_ALL_STEPS-} ]]; then
	for step in "${GIVER[@]}"; do at_step giver "$step"; done
	for step in "${TAKER[@]}"; do at_step taker "$step"; done
	# Of the others what was wrong once; move-survives-each-step-long.sh has all.
	POST_GIVER=(give-given) POST_TAKER=(take-told) FILE_GIVER=(give-settled)
	FILE_TAKER=(take-settled)
fi
KIND='post-copy' OPTIONS=(--post-copy)
for step in "${POST_GIVER[@]}"; do at_step giver "$step"; done
for step in "${POST_TAKER[@]}"; do at_step taker "$step"; done
KIND='file' OPTIONS=()
for step in "${FILE_GIVER[@]}"; do at_step giver "$step"; done
for step in "${FILE_TAKER[@]}"; do at_step taker "$step"; done
