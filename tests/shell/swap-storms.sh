# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1600
# processors: 2
# A borrower with little memory, whose programs swap to another machine, in storms: memory that is
# allocated and given back, processes by dozens, files that fill the page cache, datagrams that
# take what is kept for whoever cannot wait, until there is none for those either.  The bridge is
# in the midst of it.  A job goes on, no page is wrong, nothing fails, and the bridge neither faults
# nor takes memory.  If the job stands still, the log says who waits where.
# WEFT_STORM_SECONDS: for each kind (60; swap-storms-long: 600).  WEFT_KINDS: which of them.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap wipefs mkfs.ext4

seconds=${WEFT_STORM_SECONDS:-60}
read -ra kinds <<<"${WEFT_KINDS:-kernel-socket ublk/tcp ublk/rdma}"
in_testbed --nodes 2 --memory 288M,768M --disk 256M --kernel-log \
	--timeout $((200 + ${#kinds[@]} * (seconds + 400))) -- "$seconds" "${kinds[@]}" <<'END'
. tests/swap.sh
make_group
sysctl -q vm.min_free_kbytes=16384
storm=$WEFT_BUILD/tests/swap-storm seconds=$1
shift
echo -900 >/proc/$$/oom_score_adj
modprobe virtio_blk
mkfs.ext4 -q /dev/vda
mkdir "$TMP/disk"
mount -t ext4 /dev/vda "$TMP/disk"
start_far_donor 160M
listed() { timeout 5 weft list "weft://$PEER_TCP_IP"; }
wait_for -t 60 listed >/dev/null

# What the kernel's allocator refuses, which counts nothing of that itself: by the flags of what was
# asked for, and its order.
refusals=/sys/kernel/tracing/events/kmem/mm_page_alloc
[[ -d $refusals ]] || mount -t tracefs none /sys/kernel/tracing
echo 'hist:keys=gfp_flags.hex,order:size=256 if pfn == 0xffffffffffffffff' >$refusals/trigger
# Single pages for whoever may not wait (__GFP_HIGH, no __GFP_DIRECT_RECLAIM).
refused() {
	local flags order nr sum=0
	while read -r flags order nr; do
		flags=$((0x${flags%,}))
		((order > 0 || !(flags & 0x20) || flags & 0x400)) || ((sum += nr))
	done < <(awk '/^{ gfp_flags:/ { print $3, $5, $8 }' $refusals/hist)
	echo $sum
}

# Beside one another, for so long.
blow() {
	local pids=() pid watch
	# It has all that it needs before there is nothing left.
	"$storm" watch "$seconds" $((seconds / 5 + 30)) "$TMP/progress" 7>&- &
	watch=$!
	wait_for -t 30 grep -q 'VmLck:.*[1-9]' "/proc/$watch/status"
	"$storm" allocate "$seconds" 64 7>&- &
	pids+=($!)
	"$storm" allocate "$seconds" 48 7>&- &
	pids+=($!)
	"$storm" fork "$seconds" 24 7>&- &
	pids+=($!)
	"$storm" files "$seconds" 96 "$TMP/disk/file" 7>&- &
	pids+=($!)
	"$storm" sink "$seconds" 24 9999 7>&- &
	pids+=($!)
	node2 "$storm" flood "$seconds" "$TCP_IP" 9999 7>&- &
	pids+=($!)
	wait "$watch" || fail "$kind: it stood still"
	for pid in "${pids[@]}"; do
		wait "$pid" || (($? == 137)) || fail "$kind: a storm did not begin"
	done
}

for kind; do
	step "$kind"
	options=(--device-kind "${kind%/*}" --transport "${kind#*/}") ip=$PEER_TCP_IP
	[[ $kind != kernel-socket ]] || options=(--kernel-socket)
	[[ $kind != */rdma ]] || ip=$PEER_RDMA_IP
	weft swap on "weft://$ip/r" --lanes 1 --dead-timeout 120 "${options[@]}" >"$TMP/on" 2>&1 ||
		fail "on: $(cat "$TMP/on")"
	start_busy 64 4
	step "$kind: the job is busy"
	before=$(touched) had=$(refused)
	blow
	step "$kind: the storm is over, $(($(touched) - before)) pages at random;" \
		"$(($(refused) - had)) allocations that could not wait were refused"
	grep -E '^\{ gfp' $refusals/hist || :
	goes_on 240 200
	weft status r --json | jq -c '.attachments[0] | {errors, reconnects, latency_s, swap}'
	no_trouble
	awk '/^(pswpin|pswpout|pgmajfault|oom_kill|allocstall)/' /proc/vmstat | paste -s
	end_load
	step "$kind: all pages right"
	weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
done
dmesg | grep -c 'page allocation failure' || :
! dmesg | grep -E 'I/O error|Read-error on swap|Killed process .*(weft|swap-load)' ||
	fail "the kernel saw errors"
END
grep -E '^(==|watch:|allocate:|fork:|files:|sink:|flood:|pswpin)' "$TMP/output"
