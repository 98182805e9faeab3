# SPDX-License-Identifier: MIT
# What tests of swap in the testbed share: a job in a group of its own that swaps.  Source it after
# lib.sh, there.
# shellcheck shell=bash
need_tool jq mkswap wipefs

group=/sys/fs/cgroup/job
load=$WEFT_BUILD/tests/swap-load
swap_seconds=$SECONDS

step() { echo "== $* ($((SECONDS - swap_seconds)) s)"; }

make_group() { # may be there already
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir -p "$group"
}

start_far_donor() { # BYTES: of r, on the second machine
	node2 "mkdir -p -m 700 /run/donor
		WEFT_RUN_DIR=/run/donor exec weft-serve --listen 0.0.0.0 --allow-insecure \
			--memory r=$1 --lease 120" >"$TMP/donor.log" 2>&1 &
}

# start_load MIB THREADS PAGES|busy…: in the group; it ends when descriptor 7 is closed.
start_load() {
	rm -f "$TMP/hold"
	mkfifo "$TMP/hold"
	bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$load" "$@" \
		<"$TMP/hold" >"$TMP/load" 2>&1 &
	LOAD=$!
	exec 7>"$TMP/hold"
}
held() { grep -q held "$TMP/load" || ! kill -0 "$LOAD"; }
end_load() {
	exec 7>&-
	wait "$LOAD" || fail "the load: $? $(cat "$TMP/load"; dmesg | tail)"
	cat "$TMP/load"
}

# start_busy MIB THREADS: a load that goes on until it is ended; once it holds its pages.
start_busy() {
	rm -f "$TMP/progress"
	start_load "$1" "$2" busy "$TMP/progress"
	echo -900 >"/proc/$LOAD/oom_score_adj"
	wait_for -t 240 held
	kill -0 "$LOAD" 2>/dev/null || fail "the load: $(cat "$TMP/load")"
}
touched() { od -A n -N 8 -t u8 "$TMP/progress" | tr -d ' '; }
reached() { (($(touched) >= $1)) || ! kill -0 "$LOAD"; }
# goes_on SECONDS PAGES: the load touches so many more pages, soon.
goes_on() {
	local since=$SECONDS
	wait_for -t "$1" reached $(($(touched) + $2))
	kill -0 "$LOAD" 2>/dev/null || fail "the load: $(cat "$TMP/load"; dmesg | tail -n 40)"
	echo "   $2 pages in $((SECONDS - since)) s"
	echo "   $(cat "$group/memory.swap.current") bytes are in swap"
}

job_ended() { ! kill -0 "$LOAD"; }
# job_dies SECONDS: the kernel ends the load, soon, as its pages are gone.
job_dies() {
	local since=$SECONDS status=0
	wait_for -t "$1" job_ended
	wait "$LOAD" || status=$?
	exec 7>&-
	step "${kind:-}: the job has ended after $((SECONDS - since)) s, status $status"
	[[ $status = 135 ]] || fail "not by SIGBUS: $status $(cat "$TMP/load")"
}

swaps() { tail -n +2 /proc/swaps; }
# A test that fails has its pages brought back before it ends what has them.
bring_back() { [[ ! $(swaps) ]] || timeout 60 weft swap off --all --force >/dev/null 2>&1; }
cleanup_add bring_back

# The one attachment that there is.
bridge() { weft status r --json | jq -r ".attachments[0] | $1"; }
over() { [[ $(bridge .transport) = "$1" ]]; }
is_full() { space '.used_bytes >= 0.75 * .size_bytes' >/dev/null; }
no_trouble() {
	local well='.errors == 0 and (.swap | .faults_major == 0 and .grown_bytes == 0)'
	[[ $(bridge "$well") = true ]] ||
		fail "$(weft status r --json; weft status r --explain; dmesg | tail -n 40)"
}
# space EXPRESSION: of the one swap space there is, by jq.
space() { weft swap status --json | jq -e ".swaps[0].spaces[0] | $1"; }
