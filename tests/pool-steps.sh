# SPDX-License-Identifier: MIT
# The coordinator is killed at each step of what it decides:
# . "${BASH_SOURCE[0]%/*}/../pool-steps.sh", after pool.sh.
# every_step STEP…: the same commands come to the same end with each of them, no
# donor has a region without an owner, and no lease is there twice.
# shellcheck shell=bash

# shellcheck disable=SC2034
POOL_STEPS=(
	pool-alloc pool-alloc-changed pool-alloc-noted pool-made-changed pool-made-noted
	pool-resize pool-resize-changed pool-resize-noted
	pool-move pool-move-changed pool-move-noted pool-moved-changed pool-moved-noted
	pool-donor-changed pool-donor-noted pool-shift-changed pool-shift-noted
	pool-release pool-release-changed pool-release-noted pool-gone-changed pool-gone-noted
	pool-job-changed pool-job-noted
)
[[ $WEFT_PRESET != release ]] || skip "there are no steps in this build"

# again COMMAND…: until it succeeds; the coordinator may be killed meanwhile, and is started again.
again() {
	local i
	for ((i = 0; i < 200; i++)); do
		! "$@" >"$TMP/said" 2>&1 || return 0
		start_all
		sleep 0.1
	done
	fail "$STEP: $*: $(<"$TMP/said")"
}
at() { [[ $(weft pool leases "$1" --json | jq -r '.regions[].donor') = "$2" ]]; }
moved() { at a "$1" || { weft pool move a --to "$1" --wait 20 && at a "$1"; }; }
drained() { weft pool drain n2 --wait 20; }
released() { lease_is_gone a && weft pool status || { weft pool release a && false; }; }
job_ended() { weft pool release --for 7 && lease_is_gone b && weft pool status; }
all_owned() {
	local owned had
	owned=$(weft pool leases --json | jq -r '.leases[].regions[].region' | sort)
	had=$(for uri in "${DONORS[@]}"; do weft list "$uri" --json | jq -r '.[].name'; done | sort)
	[[ $owned = "$had" && $(sort -u <<<"$owned") = "$owned" ]] || return 1
	weft pool status --json | jq -e '.regions.unknown == 0 and .regions.lost == 0' >/dev/null
}

# Coordinators that a test has are in COORDINATORS, by socket; the first is killed.
COORDINATORS=()
start_all() { # [STEP]
	local socket
	for socket in "${COORDINATORS[@]}"; do
		# shellcheck disable=SC2034
		POOL_SOCKET=$socket
		gone "${PIDS[$socket]:-0}" || continue
		WEFT_STEP=${1:+$1=kill} start_pool
		PIDS[$socket]=$POOL_PID
		# It leads before the next is there.
		[[ ! ${1-} ]] || wait_for -t 40 weft pool status
		set --
	done
}
stop_all() {
	local socket
	for socket in "${COORDINATORS[@]}"; do
		gone "${PIDS[$socket]}" || { kill "${PIDS[$socket]}" && wait "${PIDS[$socket]}"; }
	done
}
declare -A PIDS=()

every_step() {
	local STEP name port first
	start_all
	DONORS=()
	for name in n1 n2; do
		port=$(free_port)
		pool_donor "$name" 64M --listen "127.0.0.1:$port"
		DONORS+=("weft://127.0.0.1:$port")
	done
	for STEP; do
		one_step
	done
	weft pool audit >"$TMP/audit" || fail "audit"
	! grep -E ' (lost|unknown) ' "$TMP/audit" || fail "something was lost: $(<"$TMP/audit")"
}

one_step() {
	echo "== $STEP"
	stop_all
	start_all "$STEP"
	first=${PIDS[${COORDINATORS[0]}]}
	again weft pool alloc a --size 4M
	again weft pool alloc b --size 2M --for 7
	again all_owned
	again weft pool resize a --size 8M --discard
	# Wherever it is, it goes.
	again moved n1
	again moved n2
	again weft pool open n2
	again drained
	again at a n1
	again weft pool open n2
	again all_owned
	again released
	again job_ended
	again all_owned
	[[ $(weft pool leases --json | jq '.leases | length') = 0 ]] || fail "$(weft pool leases)"
	gone "$first" || fail "$STEP: it was not killed there"
	[[ $(weft pool status --json | jq .used_bytes) = 0 ]] || fail "$(weft pool status)"
}
