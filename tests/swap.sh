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

swaps() { tail -n +2 /proc/swaps; }
# space EXPRESSION: of the one swap space there is, by jq.
space() { weft swap status --json | jq -e ".swaps[0].spaces[0] | $1"; }
