# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# A bridge with --swap in the testbed, whose device is swap space: over soft-RoCE and TCP, ublk and
# nbd, its donor killed under a job that swaps; and gone for good.  The bridge reads no page back,
# takes no memory from the kernel, and says whose pages are gone.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap swapon swapoff

in_testbed --timeout 850 --memory 2G <<'END'
seconds=$SECONDS
step() { echo "== $* ($((SECONDS - seconds)) s)"; }
trap=$WEFT_BUILD/lib/libtrap-memory.so
port=$(free_port)
serve() { start_donor --listen "0.0.0.0:$port" --allow-insecure --memory r=64M --lease 60; }
mkdir /sys/fs/cgroup/job 2>/dev/null || {
	mount -t cgroup2 none /sys/fs/cgroup && mkdir /sys/fs/cgroup/job
}
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
# Not memory.max: what stands still with the donor would have the job killed for want of memory.
echo $((12 << 20)) >/sys/fs/cgroup/job/memory.high
head -c 15M /dev/urandom | base64 -w 0 >/dev/shm/data
sum=$(sha256sum </dev/shm/data)
# A line of 20 MiB, all of which tail(1) has in memory before it writes.
job() { # FILE…: behind the line
	(
		echo $BASHPID >/sys/fs/cgroup/job/cgroup.procs
		exec tail -n 1 /dev/fd/3
	) 3< <(cat /dev/shm/data "$@")
}
swap() { weft status r --json | jq -c '.attachments[0].swap'; }
attachment() { weft status r --json | jq -e ".attachments[0] | $1" >/dev/null; }
swapped() { (($(awk '/^pswpout/ { print $2 }' /proc/vmstat) > $1)); }

begin() { # OPTION…
	rm -f "$TMP/trap" "$TMP/log"
	WEFT_TRAP=$TMP/trap LD_PRELOAD=$trap weft-attach "weft://$RDMA_IP:$port/r" --foreground \
		--swap --lanes 2 "$@" >"$TMP/log" 2>&1 &
	bridge=$!
	wait_for -t 60 grep -qx ready "$TMP/log"
	: >"$TMP/trap"
	wait_for -t 60 grep -q "trap: set" "$TMP/log"
	device=$(sed -n 's|^ *device \(/dev/[a-z0-9]*\).*|\1|p' "$TMP/log")
	mkswap "$device" >/dev/null
	swapon "$device"
}
# Where everybody is, if it takes too long.
ended() { # SECONDS PID
	local end=$((SECONDS + $1)) pid task
	until gone "$2"; do
		((SECONDS < end)) || break
		sleep 0.2
	done
	! gone "$2" || return 0
	cat "$TMP/log"
	timeout 20 weft status r || :
	for pid in "$bridge" $(pgrep -x 'tail|weft-serve|weft-guard'); do
		for task in "/proc/$pid/task"/*; do
			echo "$pid $(<"$task/comm"): $(tr '\n' ' ' <"$task/stack")"
		done
	done
	echo w >/proc/sysrq-trigger
	dmesg | tail -n 60
	fail "$how: it has not ended after $1 s"
}
good() {
	step "$how: $(swap)"
	[[ ! $(grep TRAPPED "$TMP/log") ]] || fail "$how: $(cat "$TMP/log")"
	attachment '.swap | .faults_major == 0 and .oom_score_adj == -1000 and .io_flusher and
		.grown_bytes == 0' || fail "$how: $(cat "$TMP/log")"
}

for how in "ublk rdma" "nbd tcp"; do
	serve
	step "$how"
	begin --device-kind "${how% *}" --transport "${how#* }" --dead-timeout 200
	before=$(awk '/^pswpout/ { print $2 }' /proc/vmstat)
	job | sha256sum >"$TMP/sum" &
	job=$!
	wait_for -t 120 swapped $((before + 300))
	step "it swaps"
	kill -KILL "$DONOR_PID"
	wait "$DONOR_PID" || :
	serve
	step "the donor is back"
	ended 300 $job
	[[ $(<"$TMP/sum") = "$sum" ]] || fail "$how: other bytes"
	attachment '.reconnects >= 1 and .errors == 0' || fail "$how: $(weft status r)"
	good
	swapoff "$device"
	# Its end makes a thread, which the trap would take for a reconnection's.
	kill -KILL "$bridge"
	wait "$bridge" || :
	weft detach --force r >/dev/null
	stop_donor
done

how="gone for good"
serve
begin --device-kind ublk --transport tcp --dead-timeout 5
before=$(awk '/^pswpout/ { print $2 }' /proc/vmstat)
job <(sleep 1000) >/dev/null &
job=$!
wait_for -t 120 swapped $((before + 1000))
kill -KILL "$DONOR_PID"
since=$SECONDS
wait_for -t 60 grep -q "every page that is swapped to it is out of reach" "$TMP/log"
step "the log says so after $((SECONDS - since)) s"
wait_for -t 10 grep -q "pid [0-9]* (tail) has .* of swapped pages" "$TMP/log"
good
kill -KILL $job 2>/dev/null || : # a page that it wanted was gone
pkill -x sleep || :
cat "$TMP/log"
END
