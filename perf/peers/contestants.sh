# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2153 # variables are shared with those who source it
# Block devices whose bytes are elsewhere, for the guest's side of comparisons.  Sourced; $BYTES,
# $DONOR and $LISTEN are set before the functions are called.
#
# A contestant NAME is two functions.  lend_NAME runs on the donor's machine: it starts what lends
# BYTES bytes of RAM there, and sets `pids` if a process of ours does the work.  use_NAME runs on
# the borrower's: it attaches to $DONOR, and sets
#     device   what to measure (one, or several with spaces between)
#     bridge   the process that serves it here, if there is one
#     about    how it was set up, for the report
#     backing  where the donor itself reads the same bytes: a path or an NBD URI (one machine only;
#              empty: not looked at)

work=/tmp/contestants
nqn=nqn.2014-08.org.nvmexpress:weft
PATH=$PATH:/usr/sbin:/sbin
mkdir -p $work
export WEFT_RUN_DIR=$work/weft
QUEUES=$(nproc) # connections, hardware queues, lanes: everybody has as many
# a donor's machine is told of them
read -ra weft_regions <<<"${WEFT_REGIONS:-rdma tcp ublk ublk-tcp plain}"
attach_options=() # of weft attach, beyond what a contestant says

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# wait_for COMMAND…: until it succeeds, at most 60 s.
wait_for() {
	local end=$((SECONDS + 60))
	until "$@" 2>/dev/null; do
		((SECONDS < end)) || die "waited 60 s for: $*"
		sleep 0.05
	done
}

# put FILE VALUE: an attribute of the kernel's.
put() {
	echo "$2" >"$1" || die "cannot write '$2' to $1"
}

has_bytes() { # DEVICE
	[[ -b $1 && $(<"/sys/block/${1##*/}/size") -gt 0 ]]
}

# ---- RAM as a block device: what the kernel's targets lend, and the floor of fio and the block
# layer ----

lend_null_blk() {
	local dir=/sys/kernel/config/nullb/nullb0
	[[ ! -d $dir ]] || return 0
	modprobe null_blk nr_devices=0
	mkdir "$dir"
	put $dir/memory_backed 1
	put $dir/size $((BYTES >> 20))
	put $dir/blocksize 4096
	put $dir/irqmode 0
	put $dir/submit_queues "$QUEUES"
	put $dir/poll_queues 0
	put $dir/max_sectors 2048
	put $dir/power 1
}

use_null_blk() {
	device=/dev/nullb0
	about="null_blk itself, memory-backed, completing at once, $QUEUES queues; no network: the floor of fio and the block layer"
}

# ---- nbdkit ----

# Kernel nbd on a server that is next door: what nbd.ko costs.
lend_nbd_floor() {
	nbdkit --pidfile $work/nbdkit-unix.pid --unix $work/nbdkit.sock memory "$BYTES"
	wait_for [ -s $work/nbdkit-unix.pid ]
	pids=$(<$work/nbdkit-unix.pid)
}

use_nbd_floor() {
	device=/dev/nbd0
	nbd-client -unix $work/nbdkit.sock $device -b 4096 -C "$QUEUES" >/dev/null
	backing="nbd+unix:///?socket=$work/nbdkit.sock"
	about="nbd.ko on nbdkit's memory plugin over a Unix socket, $QUEUES connections; no network: the floor of nbd.ko"
}

lend_nbdkit() {
	nbdkit --pidfile $work/nbdkit-tcp.pid --ip-addr "$LISTEN" --port 10810 memory "$BYTES"
	wait_for [ -s $work/nbdkit-tcp.pid ]
	pids=$(<$work/nbdkit-tcp.pid)
}

use_nbdkit() {
	device=/dev/nbd1
	nbd-client "$DONOR" 10810 $device -b 4096 -C "$QUEUES" >/dev/null
	backing="nbd://$DONOR:10810"
	about="nbd-client on nbdkit's memory plugin over TCP, $QUEUES connections"
}

# ---- the bridge with nothing behind it ----

lend_null_bridge() {
	setsid null-bridge $work/null-bridge.sock "$BYTES" "$QUEUES" < <(exec sleep infinity) \
		>$work/null-bridge.log 2>&1 &
	pids=$!
	wait_for [ -S $work/null-bridge.sock ]
}

use_null_bridge() {
	device=/dev/nbd6
	nbd-client -unix $work/null-bridge.sock $device -b 4096 -C "$QUEUES" >/dev/null
	backing="nbd+unix:///?socket=$work/null-bridge.sock"
	about="nbd.ko on weft's bridge with the region in its own memory, $QUEUES lanes; no network, no RDMA: the front-end's share"
}

# ---- NVMe over fabrics, on the null_blk ----

# lend_nvme TRANSPORT PORT
lend_nvme() {
	local dir=/sys/kernel/config/nvmet subsystem=$nqn:$1
	lend_null_blk
	modprobe nvme-core multipath=N # which sits below the target's modules, too
	modprobe "nvmet-$1"
	mkdir -p "$dir/subsystems/$subsystem/namespaces/1" "$dir/ports/$2"
	put "$dir/subsystems/$subsystem/attr_allow_any_host" 1
	put "$dir/subsystems/$subsystem/namespaces/1/device_path" /dev/nullb0
	put "$dir/subsystems/$subsystem/namespaces/1/enable" 1
	put "$dir/ports/$2/addr_trtype" "$1"
	put "$dir/ports/$2/addr_adrfam" ipv4
	put "$dir/ports/$2/addr_traddr" "$LISTEN"
	put "$dir/ports/$2/addr_trsvcid" "$2"
	ln -s "$dir/subsystems/$subsystem" "$dir/ports/$2/subsystems/"
}

nvme_over() { # TRANSPORT: sets device to the namespace reached over it
	local ctrl namespace
	for ctrl in /sys/class/nvme/nvme*; do
		[[ $(<"$ctrl/transport") = "$1" ]] || continue
		for namespace in "$ctrl"/nvme*n1; do
			device=/dev/${namespace##*/}
			has_bytes "$device" && return
		done
	done
	return 1
}

# use_nvme TRANSPORT PORT
use_nvme() {
	modprobe nvme-core multipath=N # one device a path
	modprobe "nvme-$1"
	mkdir -p /etc/nvme
	[[ -s /etc/nvme/hostnqn ]] || echo $nqn:borrower >/etc/nvme/hostnqn
	[[ -s /etc/nvme/hostid ]] || cat /proc/sys/kernel/random/uuid >/etc/nvme/hostid
	nvme connect -t "$1" -a "$DONOR" -s "$2" -n "$nqn:$1" -i "$QUEUES" >/dev/null
	wait_for nvme_over "$1"
	backing=/dev/nullb0
}

lend_nvme_rdma() {
	lend_nvme rdma 4420
}

use_nvme_rdma() {
	use_nvme rdma 4420
	about="NVMe over RDMA: nvmet on the null_blk, nvme connect -i $QUEUES, interrupts"
}

lend_nvme_tcp() {
	lend_nvme tcp 4421
}

use_nvme_tcp() {
	use_nvme tcp 4421
	about="NVMe over TCP: nvmet on the null_blk, nvme connect -i $QUEUES"
}

# ---- SRP: Linux's target, on the null_blk and on a RAM disk of its own ----

srpt=/sys/kernel/config/target/srpt srpt_core=/sys/kernel/config/target/core

# The target's port, which has no unit yet.
srpt_port() {
	modprobe -a target_core_mod target_core_iblock ib_srpt
	mkdir -p $srpt
	srpt_guid=$(</sys/class/infiniband/rxe0/node_guid)
	srpt_tpg=$srpt/$srpt_guid/$srpt_guid
	[[ ! -d $srpt_tpg ]] || return 0
	mkdir "$srpt/$srpt_guid"
	mkdir "$srpt_tpg"
	mkdir "$srpt_tpg/acls/$LISTEN" # ib_srpt names who logs in after the address that it came to
	put "$srpt_tpg/enable" 1
	put $srpt/discovery_auth/rdma_cm_port 5555
	cat /sys/module/ib_srpt/parameters/srpt_service_guid >$work/srp-guid
}

# srpt_unit LUN BACKSTORE: a unit of the target's.
srpt_unit() {
	mkdir "$srpt_tpg/lun/lun_$1" "$srpt_tpg/acls/$LISTEN/lun_$1"
	ln -s "$srpt_core/$2" "$srpt_tpg/lun/lun_$1/disk"
	ln -s "$srpt_tpg/lun/lun_$1" "$srpt_tpg/acls/$LISTEN/lun_$1/disk"
}

lend_srp() {
	srpt_port
	[[ ! -d $srpt_core/iblock_0/null ]] || return 0
	lend_null_blk
	mkdir -p $srpt_core/iblock_0/null
	put $srpt_core/iblock_0/null/control udev_path=/dev/nullb0
	put $srpt_core/iblock_0/null/enable 1
	srpt_unit 0 iblock_0/null
}

lend_srp_ram() {
	srpt_port
	mkdir -p $srpt_core/rd_mcp_1/ram
	put $srpt_core/rd_mcp_1/ram/control "rd_pages=$((BYTES / 4096))"
	put $srpt_core/rd_mcp_1/ram/enable 1
	srpt_unit 1 rd_mcp_1/ram
}

srp_options=queue_size=128,max_cmd_per_lun=64,max_sect=2048,cmd_sg_entries=255,sg_tablesize=255
srp_hosts() { (cd /sys/class/srp_host 2>/dev/null && echo host*); }

# srp_disk HOST LUN: sets device.
srp_disk() {
	local block
	for block in /sys/class/scsi_device/"${1#host}":*:*:"$2"/device/block/*; do
		device=/dev/${block##*/}
		has_bytes "$device" && return
	done
	return 1
}

# srp_login TARGET: sets srp_host to the SCSI host that came of it.
srp_login() {
	local before host
	modprobe sd_mod
	modprobe ib_srp ch_count="$QUEUES"
	before=" $(srp_hosts) "
	put /sys/class/infiniband_srp/srp-rxe0-1/add_target "$1,$srp_options"
	for host in $(srp_hosts); do
		[[ $before = *" $host "* ]] || srp_host=$host
	done
}

# use_srp_unit LUN
use_srp_unit() {
	local guid
	if [[ ! ${srpt_host:-} ]]; then
		guid=$(at_donor "cat $work/srp-guid")
		srp_login "id_ext=${guid#0x},ioc_guid=${guid#0x},dest=$DONOR:5555"
		srpt_host=$srp_host
	else # the unit may have come later
		put "/sys/class/scsi_host/$srpt_host/scan" "- - -"
	fi
	wait_for srp_disk "$srpt_host" "$1"
}

use_srp() {
	use_srp_unit 0
	backing=/dev/nullb0
	about="ib_srp on ib_srpt: LIO's iblock on the null_blk, ch_count=$QUEUES, ${srp_options//,/, }"
}

use_srp_ram() {
	use_srp_unit 1
	about="ib_srp on ib_srpt: LIO's RAM disk (rd_mcp), as srp"
}

# The same initiator on weft's target, in a donor of its own.
lend_srp_weft() {
	setsid weft-serve --listen "$LISTEN:10819" --srp "$LISTEN:5556" --allow-insecure \
		--memory "srp=$BYTES" >$work/serve-srp.log 2>&1 </dev/null &
	pids=$!
	(wait_for grep -qx ready $work/serve-srp.log) || die "no donor: $(<$work/serve-srp.log)"
	sed -n "s/^region 'srp' over SRP:  echo \([^ ]*\) .*/\1/p" $work/serve-srp.log \
		>$work/srp-weft-line
}

use_srp_weft() {
	srp_login "$(at_donor "cat $work/srp-weft-line")"
	wait_for srp_disk "$srp_host" 0
	about="ib_srp on weft's target (weft serve --srp), as srp"
}

# Linux's target, by weft's bridge.
lend_weft_srp() {
	lend_srp
}

use_weft_srp() {
	local guid
	guid=$(at_donor "cat $work/srp-guid")
	device=/dev/ublkb2
	setsid weft-attach "srp://$DONOR:5555/${guid#0x}" --name srp --lanes "$QUEUES" \
		--device $device --foreground >$work/attach-srp.log 2>&1 </dev/null &
	bridge=$!
	backing=/dev/nullb0
	about="weft's bridge on ib_srpt (LIO's iblock on the null_blk), $QUEUES lanes, weft attach --device /dev/ublkbN"
}

# ---- weft ----

lend_weft() {
	local region regions=()
	if [[ ! -s $work/serve.pid ]]; then
		for region in "${weft_regions[@]}"; do
			regions+=(--memory "$region=$BYTES")
		done
		setsid weft-serve --listen "$LISTEN:10809" --allow-insecure \
			--lease 30 "${regions[@]}" >$work/serve.log 2>&1 </dev/null &
		echo $! >$work/serve.pid
		(wait_for grep -qx ready $work/serve.log) || die "no donor: $(<$work/serve.log)"
	fi
	pids=$(<$work/serve.pid)
}

# use_weft REGION TRANSPORT DEVICE [OPTION…]
use_weft() {
	local lanes=(--lanes "$QUEUES")
	device=$3
	[[ ${4:-} != --kernel-socket ]] || lanes=()
	setsid weft-attach "weft://$DONOR/$1" --transport "$2" "${lanes[@]}" \
		--device "$device" --foreground "${attach_options[@]}" "${@:4}" \
		>"$work/attach-$1.log" 2>&1 </dev/null &
	bridge=$!
	about="weft over ${2/rdma/verbs}, $QUEUES lanes, weft attach --device ${device%[0-9]}N"
}

lend_weft_rdma() {
	lend_weft
}

use_weft_rdma() {
	use_weft rdma rdma /dev/nbd2
}

lend_weft_tcp() {
	lend_weft
}

use_weft_tcp() {
	use_weft tcp tcp /dev/nbd3
}

lend_weft_ublk() {
	lend_weft
}

use_weft_ublk() {
	use_weft ublk rdma /dev/ublkb0
}

lend_weft_ublk_tcp() {
	lend_weft
}

use_weft_ublk_tcp() {
	use_weft ublk-tcp tcp /dev/ublkb1
}

lend_weft_socket() {
	lend_weft
}

use_weft_socket() {
	use_weft socket tcp /dev/nbd7 --kernel-socket
	about="weft attach --device /dev/nbdN --kernel-socket: the nbd driver has the one connection"
}

# No bridge: the kernel speaks to the donor.
lend_weft_plain() {
	lend_weft
}

use_weft_plain() {
	device=/dev/nbd4
	nbd-client "$DONOR" 10809 $device -N plain -b 4096 -C "$QUEUES" >/dev/null
	about="nbd-client on weft's donor over TCP, $QUEUES connections: no bridge"
}

# ---- one or two machines ----

at_donor() { # SHELL TEXT
	if [[ ${PEER:-} ]]; then
		node2 "$1"
	else
		bash -c "$1"
	fi
}

# lend CONTESTANT: prints the processes that do the donor's work
lend() {
	local pids=''
	"lend_${1//-/_}" >&2
	echo "$pids"
}

# begin_contestant NAME: lends and uses it; sets what use_NAME does, and `donor` to the processes
# of lend_NAME.
begin_contestant() {
	local name told="${weft_regions[*]}"
	device='' bridge='' backing='' about=''
	declare -F "use_${1//-/_}" >/dev/null || die "no contestant is called $1"
	if [[ ${PEER:-} ]]; then
		donor=$(node2 "LISTEN=$PEER_RDMA_IP WEFT_REGIONS=${told@Q} \
			$(printf %q "$0") lend $1 $BYTES")
	else
		# not in a subshell's pipe, which its children would keep open
		lend "$1" >$work/lent
		donor=$(<$work/lent)
	fi
	"use_${1//-/_}"
	wait_for has_bytes "${device%% *}"
	for name in $device; do
		# zram has none
		[[ ! -e /sys/block/${name##*/}/queue/scheduler ]] ||
			put "/sys/block/${name##*/}/queue/scheduler" none
	done
}

# ---- are they what they say? ----

# verify CONTESTANT: writes the whole of it, and reads the ends back, here and at the donor.
verify() {
	local at=0 last=$(((BYTES >> 20) - 8))
	head -c 8M /dev/urandom >$work/data
	for ((at = 0; at <= last; at += 8)); do
		dd if=$work/data of="$device" bs=1M seek=$at oflag=direct conv=notrunc status=none \
			|| die "$1: cannot write"
	done
	for at in 0 $last; do
		dd if="$device" bs=1M skip="$at" count=8 iflag=direct status=none |
			cmp - $work/data || die "$1: reads other bytes than were written"
	done
	[[ $backing && ! ${PEER:-} ]] || return 0
	case $backing in
	/*) dd if="$backing" of=$work/back bs=1M count=8 iflag=direct status=none ;;
	*) nbdcopy "$backing" $work/back ;;
	esac
	cmp -n $((8 << 20)) $work/back $work/data ||
		die "$1: the donor has other bytes than were written"
	rm $work/back
}

