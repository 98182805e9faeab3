# SPDX-License-Identifier: MIT
# timeout: 400
# processors: 2
# A stock initiator (ib_srp) has a region as a disk: every byte right under load, file systems made,
# filled, checked and mounted again, what sg3-utils ask is answered.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio cmp sg_inq mkfs.ext4 mkfs.xfs

in_testbed --timeout 380 --memory 2G <<'END'
. tests/srp.sh
srp_modules
dd if=/dev/zero of="$TMP/file" bs=1M count=8 status=none

echo "== one that listens on all addresses says one that others reach"
start_donor --listen 0.0.0.0:0 --srp 0.0.0.0:5555 --allow-insecure --memory r=1M
[[ $(srp_line r) = id_ext=*,dest=$RDMA_IP:5555 ]] || fail "its line: $(cat "$DONOR_LOG")"
listed=$(weft list --line srp "weft://$RDMA_IP:${URI##*:}")
[[ $listed = "echo $(srp_line r) >"* ]] || fail "weft list has another line: $listed"
stop_donor

start_donor --listen 127.0.0.1:0 --srp "$RDMA_IP:5555" --allow-insecure --memory r=320M \
	--file "f=$TMP/file"
line=$(srp_line r)
[[ $line = id_ext=*,ioc_guid=*,dest=$RDMA_IP:5555 ]] || fail "its line: $(cat "$DONOR_LOG")"
listed=$(weft list --line srp "$URI")
[[ $listed = "echo $line >/sys/class/infiniband_srp/srp-DEVICE-PORT/add_target" ]] ||
	fail "weft list has another line: $listed"
srp_login "$line,ch_count=2" || fail "no login: $(cat "$DONOR_LOG"; dmesg | tail -n 5)"
[[ $(blockdev --getsize64 "$DISK") = $((320 << 20)) ]] || fail "its size"

echo "== what it says of itself"
sg_inq "$SG" | tee "$TMP/inq"
grep -q 'Vendor identification: WEFT' "$TMP/inq" || fail "its vendor"
for page in 0x00 0x80 0x83 0xb0 0xb1 0xb2; do
	sg_vpd -p "$page" "$SG" >>"$TMP/vpd" || fail "page $page"
done
sg_readcap -l "$SG" >>"$TMP/vpd" || fail "sg_readcap"
sg_opcodes "$SG" | tee "$TMP/opcodes" | tail -n 3
grep -q 'Write same(16)' "$TMP/opcodes" || fail "its operations"
sg_modes -a "$SG" >>"$TMP/vpd" || fail "sg_modes"
sg_luns "$SG" >>"$TMP/vpd" || fail "sg_luns"
sg_turs "$SG" || fail "sg_turs"
sg_requests "$SG" >/dev/null || fail "sg_requests"
sg_verify --count=64 --lba=0 "$SG" || fail "sg_verify"
sg_raw -s 16 "$SG" ff 00 00 00 00 00 2>"$TMP/raw" </dev/zero && fail "an unknown command passed"
grep -qi 'illegal request' "$TMP/raw" || fail "an unknown command: $(cat "$TMP/raw")"

echo "== reservations"
sg_persist --out --register --param-sark=0xabc "$SG" >/dev/null || fail "register"
sg_persist --out --reserve --param-rk=0xabc --prout-type=5 "$SG" >/dev/null || fail "reserve"
sg_persist --in --read-reservation "$SG" | tee "$TMP/pr"
grep -q 'Key=0xabc' "$TMP/pr" || fail "its reservation"
sg_persist --out --clear --param-rk=0xabc "$SG" >/dev/null || fail "clear"

echo "== fio verifies: 4 KiB to 1 MiB, depth 32, four jobs"
srp_fio --size=24M --numjobs=4 --offset_increment=24M --rw=randwrite \
	--bssplit=4k/60:64k/25:256k/10:1m/5

echo "== zeros, and the same block all over"
dd if=/dev/urandom of="$DISK" bs=1M count=8 oflag=direct status=none
sg_write_same --lba=0 --num=4096 --in=/dev/zero "$SG" || fail "sg_write_same"
cmp -n $((2 << 20)) "$DISK" /dev/zero || fail "WRITE SAME left other bytes than zeros"
for ((i = 0; i < 128; i++)); do printf 'weft'; done >"$TMP/block"
sg_write_same --16 --lba=8192 --num=64 --in="$TMP/block" "$SG" || fail "sg_write_same --16"
dd if="$DISK" iflag=direct bs=32k skip=128 count=1 status=none | cmp - \
	<(for ((i = 0; i < 64; i++)); do cat "$TMP/block"; done) || fail "not the same block"
sg_unmap --lba=0 --num=4096 "$SG" || fail "sg_unmap"
blkdiscard "$DISK" || fail "blkdiscard"
blkdiscard -z -l $((4 << 20)) "$DISK" || fail "blkdiscard -z"
cmp -n $((4 << 20)) "$DISK" /dev/zero || fail "blkdiscard -z left other bytes than zeros"

echo "== a reset under load does no harm"
srp_fio --size=8M --rw=randwrite --bs=4k --numjobs=2 --offset_increment=8M &
fio=$!
sg_reset --device "$SG" || fail "sg_reset"
wait $fio || fail "fio with a reset: $(cat "$TMP/fio")"

mkdir "$TMP/m"
random_file "$TMP/data" $((24 << 20))
for fs in ext4 xfs; do
	echo "== $fs"
	"mkfs.$fs" -q "$DISK" || fail "mkfs.$fs"
	mount -t $fs "$DISK" "$TMP/m" || fail "mount $fs"
	for ((i = 0; i < 3; i++)); do cp "$TMP/data" "$TMP/m/$i"; done
	rm "$TMP/m/0"
	fstrim "$TMP/m" || fail "fstrim on $fs"
	umount "$TMP/m"
	case $fs in
	ext4) fsck.ext4 -fn "$DISK" ;;
	xfs) xfs_repair -n "$DISK" ;;
	esac >"$TMP/fsck" 2>&1 || fail "$fs: $(cat "$TMP/fsck")"
	mount -t $fs "$DISK" "$TMP/m"
	for i in 1 2; do cmp "$TMP/data" "$TMP/m/$i" || fail "$fs: other bytes"; done
	umount "$TMP/m"
	wipefs -qa "$DISK"
done

echo "== what is shown"
weft status | tee "$TMP/status"
grep -q "over srp, in plaintext" "$TMP/status" || fail "no initiator in the status"
srp_logout

echo "== a file: what was written is in it after a flush"
srp_login "$(srp_line f)" || fail "no login to the file"
dd if="$TMP/data" of="$DISK" bs=1M count=8 oflag=direct conv=fsync status=none
cmp -n $((8 << 20)) "$TMP/data" "$TMP/file" || fail "not in the file"
srp_logout
cmp -n $((8 << 20)) "$TMP/data" "$TMP/file" || fail "not in the file after the logout"
kill "$DONOR_PID"
wait "$DONOR_PID" || fail "the donor's end: $?"
END
echo "ok: a stock initiator has a region as a disk"
