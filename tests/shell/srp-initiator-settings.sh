# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# A stock initiator with its settings: one descriptor a command and 255, memory registered or not,
# tables that the donor has to fetch, no data in commands, short queues and long ones, one channel.
# Every byte is right each time, and what the donor had for it is given back.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio python3

in_testbed --timeout 860 --memory 2G <<'END'
. tests/srp.sh
start_donor --listen 127.0.0.1:0 --srp "$RDMA_IP:5555" --allow-insecure --memory r=48M
line=$(srp_line r)
is() { [[ $(srp_host "$1") = "$2" ]] || fail "$1 is $(srp_host "$1"), not $2"; }
queue() { cat "/sys/block/${DISK#/dev/}/queue/$1"; }
login() { # OPTIONS [MODULE-PARAMETER…]
	srp_again "${@:2}"
	srp_login_again "$line${1:+,$1}"
}
verifies() { # PAGES: that a request has, no two of them side by side
	rm -f "$TMP/notes"
	disk_io write "$TMP/notes" 12 "$1" 4 48
	disk_io check "$TMP/notes" 12 "$1"
	srp_fio --size=6M --numjobs=2 --offset_increment=16M --rw=randwrite \
		--bssplit=4k/60:64k/30:1m/10
}
logout() {
	srp_logout
	donor_as_before
}
# with WHAT PAGES OPTIONS [MODULE-PARAMETER…]: `seen` looks at the login before it is used.
with() {
	login "${@:3}"
	seen
	verifies "$2"
	logout
	echo "right: $1 ($SECONDS s)"
	seen() { :; }
}
seen() { :; }
srp_modules
srp_login "$line"
srp_logout
donor_uses

with "as it is" 64 ""
seen() { is cmd_sg_entries 1; }
with "one descriptor" 64 cmd_sg_entries=1,ch_count=1
seen() { is cmd_sg_entries 255 && (($(queue max_segments) >= 255)) && is sg_tablesize 255; }
with "255 descriptors" 255 max_sect=2048 cmd_sg_entries=255 indirect_sg_entries=255
with "255 descriptors, not registered" 255 max_sect=2048 cmd_sg_entries=255 \
	indirect_sg_entries=255 never_register=Y
with "registered where it has to be" 255 sg_tablesize=255,max_sect=2048 register_always=N
seen() { is cmd_sg_entries 2 && is allow_ext_sg true && is sg_tablesize 255; }
with "tables that the donor fetches" 255 max_sect=2048 cmd_sg_entries=2 indirect_sg_entries=255 \
	allow_ext_sg=Y never_register=Y
seen() { is sg_tablesize 2048; }
with "tables of 2,048 entries" 1000 max_sect=8192 indirect_sg_entries=2048 allow_ext_sg=Y \
	never_register=Y
with "no data in commands" 1 "" use_imm_data=N
with "less data in commands" 1 "" max_imm_data=512
with "commands of a page" 3 max_sect=8
seen() { is can_queue 1; }
with "one command at a time" 16 queue_size=1
seen() { is can_queue 63; }
with "more commands than credits" 16 queue_size=256,max_cmd_per_lun=200
seen() { is ch_count 1; }
with "one channel" 16 ch_count=1

kill "$DONOR_PID"
wait "$DONOR_PID" || fail "the donor's end: $?"
END
grep -c "^right:" "$TMP/output"
