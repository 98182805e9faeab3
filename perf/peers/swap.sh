#!/bin/bash
# SPDX-License-Identifier: MIT
# The guest's side of perf/swap: makes swap spaces of the contestants, and runs programs in a group
# of processes that has less memory than they want, over one swap space after the other.  Each
# program says itself whether what it got back is right.  Leaves in $OUT what was measured, a line
# for each run.
#
# A load NAME is load_NAME, which runs the program below `in_group`, and prints what it found: the
# same each time, and nothing if something was wrong.
set -euo pipefail

usage="usage: swap.sh measure PROGRAM BYTES SET ROUNDS LOADS PERCENTS CONTESTANT…
       swap.sh lend CONTESTANT BYTES"
# shellcheck source=../perf/peers/contestants.sh
. "${BASH_SOURCE[0]%/*}/contestants.sh"
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
attach_options=(--swap)
group=/sys/fs/cgroup/job

# ---- what is local, to swap to ----

lend_zram() { :; }

use_zram() {
	modprobe zram
	device=/dev/zram0
	put "/sys/block/${device##*/}/disksize" "$BYTES"
	about="memory of the same machine, $(sed 's/.*\[\(.*\)\].*/\1/' \
		/sys/block/zram0/comp_algorithm); what the programs have does not compress"
}

lend_disk() { :; }

use_disk() {
	modprobe virtio_blk
	device=/dev/vda
	about="a file on the host's disk (virtio-blk, O_DIRECT)"
}

# ---- two regions: the kernel takes turns, or the bridge does ----

lend_weft_two() {
	lend_weft
}

use_weft_two() {
	local first
	use_weft two-a tcp /dev/ublkb3
	first=$bridge
	wait_for has_bytes "$device"
	use_weft two-b tcp /dev/ublkb4
	bridge+=" $first" device+=" /dev/ublkb3"
	about="two regions over tcp, each as weft-ublk-tcp, and swap spaces of the same priority"
}

lend_weft_striped() {
	lend_weft
}

use_weft_striped() {
	device=/dev/ublkb5
	setsid weft-attach "weft://$DONOR/striped-a" "weft://$DONOR/striped-b" --name striped \
		--transport tcp --lanes "$QUEUES" --device "$device" --foreground \
		"${attach_options[@]}" >$work/attach-striped.log 2>&1 </dev/null &
	bridge=$!
	about="two regions over tcp as one device, $QUEUES lanes, weft attach --device /dev/ublkbN"
}

# ---- the programs ----

in_group() {
	bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' $group "$@"
}

# Fill, check, at random, check; four threads.
load_program() {
	in_group "$PROGRAM" $((SET >> 20)) 4 $((SET >> 14)) <<<'' >$work/said || return
	echo "all pages right"
}

# Lines of 64 bytes that nothing compresses; a buffer of a fixed size.
load_sort() {
	in_group env LC_ALL=C sort --buffer-size=$((2 * SET)) --parallel=2 <$work/lines |
		sha256sum
}

# A store with more than memory holds, asked for every key.
load_redis() {
	local server status=0
	rm -f $work/redis.sock
	(
		# this is what Debian's redis-server is, which would come with a service
		in_group bash -c 'exec -a redis-server redis-check-rdb "$@"' redis --port 0 \
			--unixsocket $work/redis.sock --save '' --appendonly no
	) >$work/redis.log 2>&1 </dev/null &
	server=$!
	wait_for [ -S $work/redis.sock ]
	started=$EPOCHREALTIME
	/usr/bin/python3 "$here/swap-redis.py" $work/redis.sock $((SET >> 12)) || status=$?
	redis-cli -s $work/redis.sock shutdown nosave >/dev/null 2>&1 || :
	wait $server || :
	return $status
}

# k-means over points in one array.
load_numpy() {
	in_group /usr/bin/python3 "$here/swap-numpy.py" $((SET >> 6))
}

make_lines() { # sort(1) has 32 bytes more for each
	head -c $((SET / 2)) /dev/urandom | base64 --wrap=63 >$work/lines
}

# ---- one run ----

cpu_ns() { # PIDS
	local pid task ns total=-
	for pid in $1; do
		total=$((${total#-} + 0))
		for task in /proc/"$pid"/task/*/schedstat; do
			read -r ns _ <"$task" && total=$((total + ns))
		done
	done
	echo $total
}

counted() { # NAME FILE
	awk -v name="$1" '$1 == name { print $2 }' "$2"
}

# run ROUND LOAD PERCENT WHO: in a group that has so much of what the program had at most.
run() {
	local load=$2 percent=$3 who=$4 device ended in out bridge_ns donor_ns said right=yes
	mkdir $group
	if ((percent < 100)); then
		put $group/memory.max $((${peak[$load]} * percent / 100))
		for device in ${devices[$who]}; do swapon --priority 10 "$device"; done
	fi
	in=$(counted pswpin /proc/vmstat) out=$(counted pswpout /proc/vmstat)
	bridge_ns=$(cpu_ns "${bridges[$who]:-}") donor_ns=$(cpu_ns "${donors[$who]:-}")
	started=$EPOCHREALTIME
	said=$("load_$load"; echo "$started" >$work/started) || right=no
	ended=$EPOCHREALTIME
	started=$(<$work/started)
	((${peak[$load]:-0})) || peak[$load]=$(<$group/memory.peak)
	: "${expected[$load]:=$said}"
	[[ $said && $said = "${expected[$load]}" ]] || right=no
	printf '%s\n' "$1" "$load" "$percent" "$who" "$right" \
		"$(awk "BEGIN { print $ended - $started }")" \
		"$(counted pgmajfault $group/memory.stat)" \
		$(($(counted pswpin /proc/vmstat) - in)) \
		$(($(counted pswpout /proc/vmstat) - out)) \
		"$(counted oom_kill $group/memory.events)" "$(<$group/memory.peak)" \
		"$(difference "$bridge_ns" "$(cpu_ns "${bridges[$who]:-}")")" \
		"$(difference "$donor_ns" "$(cpu_ns "${donors[$who]:-}")")" |
		paste -s >>"$OUT/runs"
	tail -n 1 "$OUT/runs"
	for device in ${devices[$who]:-}; do swapoff "$device"; done
	wait_for rmdir $group
}

difference() {
	[[ $1 = - ]] && echo - || echo $(($2 - $1))
}

# ---- all of them ----

measure() {
	local who device all bridge donor backing about load round i percent
	local -A peak expected devices bridges donors
	declare -g started
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	# As the preflight of weft swap wants it, for everybody.
	sysctl -q vm.min_free_kbytes=16384
	weft-serve --help >/dev/null
	weft-attach --help >/dev/null
	rmmod nbd
	modprobe nbd nbds_max=8
	sysctl -n vm.page-cluster >"$OUT/page-cluster"
	uname -r >"$OUT/kernel"
	: >"$OUT/contestants"
	: >"$OUT/runs"
	for who; do
		begin_contestant "$who"
		all=$device
		for device in $device; do mkswap "$device" >/dev/null; done
		[[ ! ${PEER:-} ]] || donor='' # its time is the other machine's
		devices[$who]=$all bridges[$who]=$bridge donors[$who]=$donor
		printf '%s\t%s\n' "$who" "$about" >>"$OUT/contestants"
		echo "$who: swap space on $all, $SECONDS s"
	done
	for load in "${loads[@]}"; do
		[[ $load != sort ]] || make_lines
		# Once for the files that the program reads, once for what it has at most.
		run - "$load" 100 local
		peak[$load]=0
		run - "$load" 100 local
		for ((round = 0; round < ROUNDS; round++)); do
			run "$round" "$load" 100 local
			for percent in "${percents[@]}"; do
				for ((i = 0; i < $#; i++)); do
					who=$(((i + round) % $# + 1))
					run "$round" "$load" "$percent" "${!who}"
				done
			done
		done
	done
	weft status --json >$work/status.json
	cp $work/status.json "$OUT/"
	if dmesg | grep -E 'WARNING|BUG|Oops|I/O error'; then die "the kernel has complaints"; fi
}

# Of these, and no others: each takes memory.
regions_of() { # CONTESTANT…
	local who
	for who; do
		case $who in
		weft-two) echo two-a two-b ;;
		weft-striped) echo striped-a striped-b ;;
		weft-*) echo "${who#weft-}" ;;
		esac
	done
}

case ${1:-} in
measure)
	(($# >= 8)) || { echo "$usage" >&2 && exit 2; }
	PROGRAM=$2 BYTES=$3 SET=$4 ROUNDS=$5
	DONOR=${PEER_RDMA_IP:-$RDMA_IP} LISTEN=$RDMA_IP
	IFS=, read -ra loads <<<"$6"
	IFS=, read -ra percents <<<"$7"
	shift 7
	mapfile -t weft_regions < <(regions_of "$@" | tr ' ' '\n')
	measure "$@"
	;;
lend)
	BYTES=$3
	lend "$2"
	;;
*) echo "$usage" >&2 && exit 2 ;;
esac
