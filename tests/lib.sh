# SPDX-License-Identifier: MIT
# What shell tests share.  Source it first: . "${BASH_SOURCE[0]%/*}/../lib.sh"
# A test exits 0 (passed), 77 (skipped, after "SKIP: reason") or otherwise (failed).
# It gets a temporary directory, $TMP, and a run directory of its own, and whatever it started (each
# process that has our run directory in its environment) ends with it.
# shellcheck shell=bash
set -euo pipefail

WEFT_SRC=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
WEFT_PRESET=${WEFT_PRESET:-dev}
WEFT_BUILD=${WEFT_BUILD:-$WEFT_SRC/build/$WEFT_PRESET}
WEFT_BIN=${WEFT_BIN:-$WEFT_BUILD/bin}
WEFT_TIER=${WEFT_TIER:-first}
TMP=$(mktemp -d "${TMPDIR:-/tmp}/weft-test.XXXXXX")
export WEFT_SRC WEFT_PRESET WEFT_BUILD WEFT_BIN WEFT_TIER TMP WEFT_RUN_DIR=$TMP/run
export PATH=$WEFT_BIN:$PATH:/usr/sbin:/sbin
mkdir -m 700 "$WEFT_RUN_DIR"
# No key of whoever runs the tests.
unset WEFT_KEY
[[ ! -e ${HOME-}/.config/weft/key ]] || export HOME=$TMP/home

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

# need_tool TOOL…: skips unless each is there.
need_tool() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || skip "$tool is not installed"
	done
}

# need_line: skips unless a line to measure on (weft line) can be had here.  line [OPTION…] WHAT
# NUMBER: what tests/support/line-probe.py sends over one.
need_line() {
	need_tool python3 nsenter unshare
	[[ -r /dev/net/tun && -w /dev/net/tun ]] || skip "/dev/net/tun is not there for this user"
	unshare --net true 2>/dev/null || unshare --user --map-root-user --net true 2>/dev/null ||
		skip "no network namespace can be made here"
}

line() {
	weft line "${@:1:$#-2}" python3 "$WEFT_SRC/tests/support/line-probe.py" "${@: -2}"
}

# on_a_line [OPTION…]: makes $TMP/inside of the script that it reads, for weft line: with a donor at
# the far end, with these options or else without keys, that lends 16 MiB as r, which is $uri.
on_a_line() {
	(($#)) || set -- --allow-insecure
	{
		echo "options=(${*@Q})"
		cat <<-'FIRST'
			set -euo pipefail
			nsenter --net="$WEFT_LINE_FAR" weft-serve --listen "$WEFT_LINE_FAR_IP:0" \
				"${options[@]}" --memory r=16M >"$TMP/donor.log" 2>&1 &
			donor=$!
			for ((i = 0; i < 600; i++)); do
				! grep -qx ready "$TMP/donor.log" || break
				sleep 0.05
			done
			uri=$(grep -o "weft://[^ ']*" "$TMP/donor.log" | head -n 1)
		FIRST
		cat
		cat <<-'LAST'
			kill "$donor"
			wait "$donor"
		LAST
	} >"$TMP/inside"
}

# need_testbed: skips unless virtual machines can be booted here (tests/testbed); makes what they
# boot.
need_testbed() {
	local said
	said=$("$WEFT_SRC/tests/testbed/run" --prepare 2>&1) || skip "${said##*$'\n'}"
}

# in_testbed [OPTION…] [-- ARGUMENT…]: runs the script that it reads, which has this file at hand,
# in the testbed, and shows what it said.  It fails where the script does not come to its end, and
# where somebody complains.
in_testbed() {
	local options=() status=0
	{
		cat <<-'FIRST'
			. tests/lib.sh
			export ASAN_OPTIONS=log_path=$TMP/asan UBSAN_OPTIONS=log_path=$TMP/asan
		FIRST
		cat
		printf 'nobody_complains\necho "== done"\n'
	} >"$TMP/inside"
	while (($#)) && [[ $1 != -- ]]; do
		options+=("$1")
		shift
	done
	(cd "$WEFT_SRC" && tests/testbed/run "${options[@]}" -- bash "$TMP/inside" "${@:2}") \
		>"$TMP/output" 2>&1 || status=$?
	((status != 77)) || skip "$(sed -n 's/^SKIP: //p' "$TMP/output")"
	((status == 0)) || fail "exit status $status: $(tail -n 120 "$TMP/output")"
	grep -q '^== done' "$TMP/output" || fail "it did not come to its end: $(cat "$TMP/output")"
	cat "$TMP/output"
}

# conformance_in_testbed SECONDS [OPTION…] -- [env VARIABLE=VALUE…] PROGRAM: a program of
# tests/conformance, which passes there; what it said.
conformance_in_testbed() {
	"$WEFT_SRC/tests/testbed/run" --timeout "$@" >"$TMP/output" 2>&1 ||
		fail "${*: -1}: exit status $?: $(grep -A 60 '^WARNING: Thread' "$TMP/output")
$(tail -n 60 "$TMP/output")"
	grep -q '^\[  PASSED  \] [0-9]* test' "$TMP/output" ||
		fail "nothing ran: $(cat "$TMP/output")"
	cat "$TMP/output"
}

# nobody_complains [PATTERN]: of what ran in the testbed neither the sanitizers do, nor the kernel
# (of PATTERN either).
nobody_complains() {
	if compgen -G "$TMP/asan*" >/dev/null; then
		cat "$TMP"/asan*
		fail "the sanitizers have complaints"
	fi
	if dmesg | grep -E "WARNING|BUG|Oops|segfault${1:+|$1}"; then
		fail "the kernel has complaints"
	fi
}

# The processes of this test, but for its shell (which set the variable after it was started).
our_processes() {
	local file
	while read -r file; do
		file=${file#/proc/}
		echo "${file%/environ}"
	done < <(env -u WEFT_RUN_DIR grep -lzsx "WEFT_RUN_DIR=$WEFT_RUN_DIR" /proc/[0-9]*/environ)
}

# wait_for [-t SECONDS] COMMAND…: until it succeeds, at most 10 s (30 s under a sanitizer's pace).
wait_for() {
	local bound=10 end
	case $WEFT_PRESET in asan | tsan | valgrind) bound=30 ;; esac
	[[ $1 != -t ]] || { bound=$2 && shift 2; }
	end=$((SECONDS + bound))
	until "$@" 2>/dev/null; do
		((SECONDS < end)) || fail "waited $bound s for: $*"
		sleep 0.05
	done
}

# gone PID: it ended, reaped or not.
gone() {
	local threads
	[[ -e /proc/$1 ]] || return 0
	# A first thread is a zombie before the others have ended, and the descriptors with them.
	threads=("/proc/$1/task/"*)
	((${#threads[@]} <= 1)) && grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null
}

# start_donor ARGUMENT…: a donor on a free port of 127.0.0.1 (unless --listen is among the
# arguments), once it is ready.  Sets DONOR_PID, DONOR_LOG, PORT, and URI (of the first region that
# it printed).
start_donor() {
	local listen=(--listen 127.0.0.1:0)
	[[ " $* " != *" --listen"* ]] || listen=()
	DONOR_LOG=$(mktemp "$TMP/donor.XXXXXX")
	weft-serve "${listen[@]}" "$@" >"$DONOR_LOG" 2>&1 &
	DONOR_PID=$!
	# In the testbed the processors may be busy with what the last donor left there.
	wait_for -t 120 donor_ready_or_dead
	if ! grep -qx ready "$DONOR_LOG"; then
		cat "$DONOR_LOG" >&2
		fail "the donor did not start: weft-serve $*"
	fi
	URI=$(grep -o "weft[+a-z]*://[^ ']*" "$DONOR_LOG" | head -n 1) || :
	PORT=$(sed -n 's|^weft://.*:\([0-9]*\)/.*|\1|p' <<<"$URI")
	export DONOR_PID DONOR_LOG URI PORT
}

donor_ready_or_dead() {
	grep -qx ready "$DONOR_LOG" || gone "$DONOR_PID"
}

# stop_donor [SIGNAL]: TERM unless told otherwise; returns the donor's exit status.
stop_donor() {
	kill -s "${1:-TERM}" "$DONOR_PID"
	wait "$DONOR_PID"
}

# memory_group BYTES: a group of processes below our own with this limit on memory, of either
# version of cgroups; skips where it cannot be made.  Such a test is serial.  in_memory_group
# COMMAND…: runs it there.
memory_group() {
	local mount group limit=memory.limit_in_bytes
	read -r mount _ < \
		<(awk '$(NF-2) == "cgroup" && $NF ~ /(^|,)memory(,|$)/ {print $5; exit}' /proc/self/mountinfo) || mount=
	group=$(sed -n 's/^[0-9]*:[^:]*\bmemory\b[^:]*://p' /proc/self/cgroup)
	if [[ ! $mount ]]; then
		read -r mount _ < \
			<(awk '$(NF-2) == "cgroup2" {print $5; exit}' /proc/self/mountinfo) ||
				skip "no cgroups here"
		group=$(sed -n 's/^0:://p' /proc/self/cgroup) limit=memory.max
	fi
	MEMORY_GROUP=$mount${group%/}/weft-test-$$
	mkdir "$MEMORY_GROUP" 2>/dev/null || skip "cannot make a group below $mount$group"
	cleanup_add remove_memory_group
	[[ -w $MEMORY_GROUP/$limit ]] || skip "no limit can be set in $MEMORY_GROUP"
	echo "$1" >"$MEMORY_GROUP/$limit" || skip "no limit can be set in $MEMORY_GROUP"
}

in_memory_group() {
	bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$MEMORY_GROUP" "$@"
}

remove_memory_group() {
	local pids
	mapfile -t pids <"$MEMORY_GROUP/cgroup.procs"
	[[ ${#pids[@]} = 0 ]] || kill "${pids[@]}" 2>/dev/null || :
	wait_for rmdir "$MEMORY_GROUP"
}

# free_port: a TCP port of 127.0.0.1 that nobody listens on now, for what must be known beforehand.
# Each once: what a donor has noted is there for the next donor at its address.
free_port() {
	local port
	for ((;;)); do
		port=$((20000 + RANDOM % 12000))
		! grep -qsx "$port" "$TMP/free-ports" || continue
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port" >>"$TMP/free-ports"
	echo "$port"
}

# random_file PATH BYTES: bytes that cannot be guessed or compressed.
random_file() {
	head -c "$2" /dev/urandom >"$1"
}

# Tests add commands to it: cleanup_add 'umount "$TMP/mnt"'.  Run last first, before processes end.
cleanup_commands=()
cleanup_add() {
	cleanup_commands+=("$1")
}

cleanup() {
	local status=$? i pids
	trap '' INT TERM
	trap - EXIT
	set +e
	for ((i = ${#cleanup_commands[@]} - 1; i >= 0; i--)); do
		eval "${cleanup_commands[i]}"
	done
	mapfile -t pids < <(our_processes)
	[[ ${#pids[@]} = 0 ]] || kill "${pids[@]}" 2>/dev/null
	for ((i = 0; i < 40; i++)); do
		mapfile -t pids < <(our_processes)
		[[ ${#pids[@]} != 0 ]] || break
		sleep 0.05
	done
	[[ ${#pids[@]} = 0 ]] || kill -KILL "${pids[@]}" 2>/dev/null
	while read -r _ mount _; do # a FUSE file whose server died
		[[ $mount != "$TMP"/* ]] || umount -l "$mount"
	done </proc/self/mounts
	if ((status != 0 && status != 77)); then
		tail -n 30 "$TMP"/donor.* >&2
	fi 2>/dev/null
	rm -rf "$TMP"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 129' INT TERM HUP
