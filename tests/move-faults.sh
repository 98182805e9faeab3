# SPDX-License-Identifier: MIT
# A move between two machines of four, under a writer that checks, in which something fails at one
# of the steps (fabric/base/step.h).  Each machine is a network namespace, and the test's own is the
# router between them.  Source it after lib.sh.
# shellcheck shell=bash disable=SC2034 # the tests use STEPS and FAULTS

STEPS=(give-begun give-frozen give-giving give-noted give-given give-noted-gone
	take-room take-prepared take-begun take-pulled take-frozen take-copied take-told take-owner
	take-serves take-told-served)
FAULTS=(abort kill-giver kill-taker kill-mover kill-borrower pause-giver pause-taker pause-mover
	pause-borrower cut-giver-taker cut-giver-borrower cut-taker-borrower cut-mover-giver
	cut-mover-taker)
declare -A NUMBERS=([giver]=1 [taker]=2 [borrower]=3 [mover]=4) NETS PIDS LOGS

# in_net_of_its_own TEST ARGUMENT…: before lib.sh is sourced: goes on in a network namespace.
in_net_of_its_own() {
	local unshare=(unshare --net)
	[[ ! ${WEFT_ROUTER-} ]] || return 0
	"${unshare[@]}" true 2>/dev/null || unshare=(unshare --user --map-root-user --net)
	"${unshare[@]}" true 2>/dev/null || {
		echo "SKIP: no network namespace can be made here"
		exit 77
	}
	WEFT_ROUTER=yes exec "${unshare[@]}" bash "$@"
}

has_own_net() { [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }

machines() {
	local who n
	need_tool ip nsenter python3
	echo 1 >/proc/sys/net/ipv4/ip_forward
	ip link set lo up
	for who in "${!NUMBERS[@]}"; do
		n=${NUMBERS[$who]}
		unshare --net sleep infinity &
		wait_for has_own_net $!
		NETS[$who]=/proc/$!/ns/net
		ip link add "m$n" type veth peer name e netns $! || skip "no veth"
		ip addr add "10.77.$n.1/24" dev "m$n"
		ip link set "m$n" up
		nsenter --net="${NETS[$who]}" bash -c "ip link set lo up
			ip addr add 10.77.$n.2/24 dev e
			ip link set e up
			ip route add default via 10.77.$n.1"
	done
}

# cut_line KIND A B: what goes from one to the other is lost (blackhole), or answered (unreachable).
cut_line() {
	local a=10.77.${NUMBERS[$2]}.2 b=10.77.${NUMBERS[$3]}.2
	ip rule add pref 9 from "$a" to "$b" "$1"
	ip rule add pref 9 from "$b" to "$a" "$1"
}
mend() { while ip rule del pref 9 2>/dev/null; do :; done; }

# place WHO: the donor's, of this case.
place() { echo "weft://10.77.${NUMBERS[$1]}.2:$port"; }

# KIND, SIZE: of the region; a file is in FILES.  OPTIONS: of weft move.
KIND='memory' SIZE=4M FILES=
OPTIONS=()

# donor WHO [STEP]: at which it stops, once.
donor() {
	local what=(--memory "r=$SIZE")
	[[ $1 = giver ]] || what=(--take 64M)
	[[ $KIND$1 != filetaker ]] || what=(--take "$FILES/taken")
	[[ $KIND$1 != filegiver ]] || what=(--file r="$FILES/given")
	LOGS[$1]=$(mktemp "$TMP/$1.XXXXXX")
	WEFT_STEP=${2:+$2=stop} nsenter --net="${NETS[$1]}" weft-serve --allow-insecure --lease 2 \
		--listen "10.77.${NUMBERS[$1]}.2:$port" "${what[@]}" >"${LOGS[$1]}" 2>&1 &
	PIDS[$1]=$!
	wait_for -t 120 grep -qx ready "${LOGS[$1]}"
}
bridge() {
	nsenter --net="${NETS[borrower]}" weft attach "$(place giver)/r" --name "box-$port" \
		--socket "$socket" --timeout 90 --dead-timeout 90 --foreground \
		>>"$TMP/bridge" 2>&1 &
	PIDS[borrower]=$!
}
move() {
	nsenter --net="${NETS[mover]}" weft-move "${OPTIONS[@]}" "$(place giver)/r" \
		"$(place taker)" >>"$TMP/moved" 2>&1 &
	PIDS[mover]=$!
}
lists() {
	weft list "$(place "$1")" 2>/dev/null | grep '^r ' | grep -vq 'moved to'
}
has_moved() { lists taker && ! lists giver; }
stopped() { grep -q '^State:.T' "/proc/${PIDS[$1]}/status"; }

troubles() {
	tail -n 60 "$TMP/writer" "$TMP/bridge" "$TMP/moved" "${LOGS[@]}" >&2
	weft status --explain "box-$port" >&2 || :
	fail "$fault at $step, $seconds s: $*"
}

# killed WHO: is killed, and started again.
killed() {
	kill -KILL "${PIDS[$1]}" 2>/dev/null || :
	wait "${PIDS[$1]}" || :
	case $1 in
	giver | taker) donor "$1" ;;
	borrower) bridge ;;
	esac
}
# go_on: the donor at the step.
go_on() { kill -CONT "${PIDS[$stepper]}" 2>/dev/null || :; }

# take_over: the bridge that was started over a killed one may be too early, and is started again.
take_over() {
	for ((i = 0; i < 60; i++)); do
		! gone "${PIDS[borrower]}" || bridge
		! weft status "box-$port" 2>/dev/null | grep -q ' ready' || return 0
		sleep 0.5
	done
	troubles "no bridge takes over"
}

fails() {
	local who=${fault#*-}
	case ${fault%%-*} in
	abort)
		kill -INT "${PIDS[mover]}" 2>/dev/null || :
		go_on
		;;
	kill)
		killed "$who"
		go_on
		[[ $who != borrower ]] || take_over
		;;
	pause)
		kill -STOP "${PIDS[$who]}" 2>/dev/null || :
		[[ $who = "$stepper" ]] || go_on
		sleep "$seconds"
		kill -CONT "${PIDS[$who]}" 2>/dev/null || :
		;;
	cut)
		cut_line "$kind" "${who%-*}" "${who#*-}"
		go_on
		sleep "$seconds"
		mend
		;;
	esac
}

# case_of STEP FAULT SECONDS blackhole|unreachable: SECONDS is how long who is paused stays so, or
# a line that is cut.  Everything has to come to an end within what is waited for at most, where
# somebody does not answer: 60 s.
case_of() {
	local step=$1 fault=$2 seconds=$3 kind=$4 stepper=giver stop began longest socket
	[[ $step = give-* ]] || stepper=taker
	port=$((${port:-7000} + 1)) stop=$TMP/stop-$port socket=$TMP/s-$port
	: >"$TMP/bridge"
	: >"$TMP/moved"
	for who in giver taker; do
		if [[ $who = "$stepper" ]]; then donor "$who" "$step"; else donor "$who"; fi
	done
	bridge
	wait_for -t 60 test -S "$socket"
	python3 "$WEFT_SRC/tests/support/checked-writer.py" "$socket" "$stop" 1 500 --patience 120 \
		>"$TMP/writer" 2>&1 &
	PIDS[writer]=$!
	wait_for -t 60 test -e "$stop.began"
	move
	wait_for -t 60 stopped "$stepper"
	fails
	began=$SECONDS
	until has_moved; do
		((SECONDS < began + 60)) || troubles "it has not moved"
		! gone "${PIDS[mover]}" || move
		sleep 0.2
	done
	until gone "${PIDS[mover]}"; do
		((SECONDS < began + 60)) || troubles "the mover has not ended"
		sleep 0.1
	done
	touch "$stop"
	until gone "${PIDS[writer]}"; do
		((SECONDS < began + 60)) || troubles "the writer waits"
		sleep 0.1
	done
	wait "${PIDS[writer]}" || troubles "the writer"
	has_moved || troubles "it is not there any more"
	echo "$step $fault $seconds s: after $((SECONDS - began)) s there; $(<"$TMP/writer")"
	longest=$(sed -n 's/.* \([0-9]*\) ms$/\1/p' "$TMP/writer")
	((longest < (seconds + 60) * 1000)) || troubles "the longest request"
	weft detach "box-$port"
	wait "${PIDS[borrower]}" || :
	kill "${PIDS[giver]}" "${PIDS[taker]}"
	wait "${PIDS[giver]}" || troubles "the giver ends with $?"
	wait "${PIDS[taker]}" || troubles "the taker ends with $?"
}
