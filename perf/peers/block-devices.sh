#!/bin/bash
# SPDX-License-Identifier: MIT
# The guest's side of perf/block-devices: starts the contestants, checks that each moves the right
# bytes, and lets one fio run the same work on all of them in turn.  Leaves in $OUT what was
# measured, as it came.
set -euo pipefail

usage="usage: block-devices.sh measure BYTES ROUNDS SLICE_MS CONTESTANT…
       block-devices.sh lend CONTESTANT BYTES"
# shellcheck source=../perf/peers/contestants.sh
. "${BASH_SOURCE[0]%/*}/contestants.sh"

# ---- what the test of this program runs: says that all is well, and keeps nothing ----

lend_nothing() {
	nbdkit --pidfile $work/nothing.pid --unix $work/nothing.sock null "$BYTES"
	wait_for [ -s $work/nothing.pid ]
	pids=$(<$work/nothing.pid)
}

use_nothing() {
	device=/dev/nbd5
	nbd-client -unix $work/nothing.sock $device -b 4096 -C "$QUEUES" >/dev/null
	about="nbd.ko on nbdkit's null plugin"
}

# ---- the work ----

# Sourced by the shell that fio starts before and after a job, so that only one program is started:
# when it was, the idle time of all processors (s/100), the CPU time of donor and bridge (ns, or -).
write_snapshot() {
	cat >$work/snapshot <<'END'
read -r up rest </proc/uptime
read -r cpu user nice system idle iowait rest </proc/stat
. /tmp/contestants/pids
sum() {
	total=-
	for pid; do
		total=$((${total#-} + 0))
		for task in /proc/$pid/task/*/schedstat; do
			read -r ns rest <$task && total=$((total + ns))
		done
	done
}
sum $bridge
bridge_ns=$total
sum $donor
echo $up $((idle + iowait)) $total $bridge_ns
[ "$who" != null-bridge ] || [ ! "$row" ] || . /tmp/contestants/perftest
END
}

# Run after a job of null-bridge: what RDMA itself takes for it, with events, as a lane waits.
write_perftest() {
	cat >$work/perftest <<END
exec </dev/null 2>>$work/perftest.err
case \$row in
*.read-4k-1) tool="ib_read_lat -e -s 4096 -n 2000" counter=p50_us column=5 ;;
*.read-1m-4) tool="ib_read_bw -e -s 1048576 -t 4 -Q 1 -n 60 --report_gbits" counter=MB_s column=4 ;;
*) exit 0 ;;
esac
timeout 20 \$tool -R -F >/dev/null &
sleep 0.5
timeout 20 \$tool -R -F $RDMA_IP >$work/perftest.out
wait
awk -v row="\$row" -v counter=\$counter -v column=\$column \
	'\$1 ~ /^[0-9]+\$/ { v = \$column } END { print row "\t" counter "\t" (counter == "MB_s" ? v * 125 : v) }' $work/perftest.out >>$work/perftests
END
}

# job NAME CONTESTANT RW BLOCK DEPTH MORE…
job() {
	local name=$1 who=$2 rw=$3 bs=$4 depth=$5 more
	shift 5
	printf '[%s.%s]\nfilename=%s\nrw=%s\nbs=%s\niodepth=%s\n' "$name" "$who" \
		"${devices[$who]}" "$rw" "$bs" "$depth"
	printf 'exec_prerun=who=%s . %s/snapshot\nexec_postrun=who=%s row=%s . %s/snapshot\n' \
		"$who" $work "$who" "$name" $work
	for more; do echo "$more"; done
}

jobs_of_all_rounds() {
	local round row rw bs depth i who
	cat <<-END
		[global]
		ioengine=libaio
		direct=1
		thread=1
		stonewall
		norandommap
		randrepeat=0
		invalidate=0
		lat_percentiles=1
		clat_percentiles=0
		percentile_list=50:99
	END
	for ((round = 0; round < ROUNDS; round++)); do
		for row in randread,4k,1 randwrite,4k,1 randread,4k,16 randwrite,4k,16 randread,1m,4 randwrite,1m,4; do
			IFS=, read -r rw bs depth <<<"$row"
			for ((i = 0; i < ${#contestants[@]}; i++)); do
				who=${contestants[(i + round) % ${#contestants[@]}]}
				job "$round.${rw#rand}-$bs-$depth" "$who" "$rw" "$bs" "$depth" \
					time_based=1 "runtime=${SLICE_MS}ms"
			done
		done
	done
	for rw in read write; do
		for who in weft-ublk weft-rdma weft-ublk-tcp weft-tcp; do
			[[ ! ${devices[$who]:-} ]] ||
				job "0.one-sided-$rw" "$who" "$rw" 1m 4 "io_size=$ONE_SIDED"
		done
	done
}

# The queue of a device as it is.
queue_of() {
	local queue=/sys/block/${1##*/}/queue scheduler
	scheduler=$(<"$queue/scheduler")
	scheduler=${scheduler#*[}
	echo "$(find "${queue%/*}/mq" -mindepth 1 -maxdepth 1 | wc -l) queues of $(<"$queue/nr_requests"), max_sectors_kb $(<"$queue/max_sectors_kb"), $(<"$queue/max_segments") segments, scheduler ${scheduler%]*}"
}

measure() {
	local who device bridge donor backing about
	declare -gA devices
	# Programs are there before anybody waits for them: where instructions are time, a machine
	# that waits for its host's files lets hours go by at once.
	weft-serve --help >/dev/null
	weft-attach --help >/dev/null
	declare -g contestants=("$@")
	rmmod nbd
	modprobe nbd nbds_max=8
	write_snapshot
	write_perftest
	: >$work/perftests
	: >"$OUT/contestants"
	for who; do
		begin_contestant "$who"
		verify "$who"
		devices[$who]=$device
		printf '%s\t%s\t%s\n' "$who" "$about" "$(queue_of "$device")" >>"$OUT/contestants"
		printf '%s) bridge="%s" donor="%s" ;;\n' "$who" "$bridge" "$donor" >>$work/cases
		echo "$who: $device moves the right bytes"
	done
	{ echo "case \$who in" && cat $work/cases && echo "esac"; } >$work/pids
	jobs_of_all_rounds >$work/jobs
	cd $work
	echo "measuring"
	fio --output-format=json --eta=never --output=fio.json jobs 2>fio.err >&2 ||
		die "fio: $(head -n 20 fio.err fio.json)"
	[[ ! -s fio.err ]] || cat fio.err >&2
	gzip -1 <fio.json >"$OUT/fio.json.gz"
	cp perftests "$OUT/"
	grep -H . -- *.prerun.txt *.postrun.txt >"$OUT/snapshots"
	if dmesg | grep -E 'WARNING|BUG|Oops|I/O error'; then die "the kernel has complaints"; fi
	uname -r >"$OUT/kernel"
}

case ${1:-} in
measure)
	BYTES=$2 ROUNDS=$3 SLICE_MS=$4
	shift 4
	ONE_SIDED=${ONE_SIDED:-256m}
	DONOR=${PEER_RDMA_IP:-$RDMA_IP} LISTEN=$RDMA_IP
	measure "$@"
	;;
lend)
	BYTES=$3
	lend "$2"
	;;
*) echo "$usage" >&2 && exit 2 ;;
esac
