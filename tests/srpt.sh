# SPDX-License-Identifier: MIT
# Linux's own SRP target (LIO, ib_srpt) in the testbed, over a file or a RAM disk.  For scripts that
# in_testbed runs.  It has one target port, which is reached at $RDMA_IP port $SRPT_PORT under
# $SRPT_GUID; its ACL lets this machine in.

SRPT_PORT=5555
srpt=/sys/kernel/config/target/srpt
srpt_core=/sys/kernel/config/target/core

# put FILE VALUE: an attribute of the kernel's.
put() {
	echo "$2" >"$1" || fail "cannot write '$2' to $1"
}

# srpt_disk NAME BYTES [BLOCK]: a backstore over $TMP/NAME, which is made, unless it is there.
srpt_disk() {
	local dir=$srpt_core/fileio_0/$1
	modprobe -a target_core_mod target_core_file
	[[ -e $TMP/$1 ]] || truncate -s "$2" "$TMP/$1"
	mkdir -p "$dir"
	put "$dir/control" "fd_dev_name=$TMP/$1,fd_dev_size=$2"
	put "$dir/attrib/block_size" "${3:-512}"
	put "$dir/wwn/vpd_unit_serial" "weft-$1"
	put "$dir/enable" 1
	put "$dir/attrib/emulate_tpu" 1
	put "$dir/attrib/emulate_tpws" 1
}

# srpt_ram NAME BYTES: a backstore of pages of the kernel's, which can neither UNMAP nor WRITE SAME.
srpt_ram() {
	local dir=$srpt_core/rd_mcp_1/$1
	modprobe target_core_mod
	mkdir -p "$dir"
	put "$dir/control" "rd_pages=$(($2 / 4096))"
	put "$dir/wwn/vpd_unit_serial" "weft-$1"
	put "$dir/enable" 1
}

# srpt_serve BACKSTORE…: the target, whose LUNs 0, 1, … are these ("fileio_0/NAME").
srpt_serve() {
	local lun=0 acl backstore
	modprobe ib_srpt
	mkdir -p "$srpt"
	SRPT_GUID=$(</sys/module/ib_srpt/parameters/srpt_service_guid)
	SRPT_GUID=${SRPT_GUID#0x}
	guid=$(</sys/class/infiniband/rxe0/node_guid)
	srpt_tpg=$srpt/$guid/$guid
	mkdir -p "$srpt_tpg"
	acl=$srpt_tpg/acls/$RDMA_IP # ib_srpt names who logs in after the address that it came to
	mkdir -p "$acl"
	for backstore; do
		mkdir "$srpt_tpg/lun/lun_$lun" "$acl/lun_$lun"
		ln -s "$srpt_core/$backstore" "$srpt_tpg/lun/lun_$lun/disk"
		ln -s "$srpt_tpg/lun/lun_$lun" "$acl/lun_$lun/disk"
		lun=$((lun + 1))
	done
	srpt_start
	put $srpt/discovery_auth/rdma_cm_port "$SRPT_PORT"
}

# The target port goes, with all who are logged in, and comes back.
srpt_stop() {
	put "$srpt_tpg/enable" 0
}
srpt_start() {
	put "$srpt_tpg/enable" 1
}
