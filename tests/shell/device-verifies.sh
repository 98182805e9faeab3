# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# A region as /dev/nbdN, over TCP and over RDMA: fio verify in each way to use a device, ext4, TRIM
# and WRITE_ZEROES, read-only; what a detach refuses and names; what was written is with the donor
# after it; two devices; a device of somebody else's is let be.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio nbdcopy cmp

in_testbed --timeout 800 <<'END'
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=64M --memory q=8M --lease 20
uri=weft://$RDMA_IP:$PORT/r
refused() { # refused TEXT COMMAND…: it fails, and says so
	local text=$1
	shift
	! "$@" >"$TMP/out" 2>&1 || fail "not refused: $*"
	grep -q "$text" "$TMP/out" || fail "not '$text': $(cat "$TMP/out")"
}
verify() { # verify DEVICE FIO-OPTION…
	fio --name=v --filename="$1" --size=12M --offset_increment=12M --rw=randwrite \
		--bssplit=4k/60:64k/30:1m/10 --numjobs=4 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --group_reporting \
		--minimal "${@:2}" >"$TMP/fio" 2>&1 || fail "fio ${*:2}: $(cat "$TMP/fio")"
}
device() { sed -n 's|^  device \([^ ]*\) (nbd, .*|\1|p' "$TMP/out"; }

for transport in tcp rdma; do
	echo "== $transport"
	weft attach "$uri" --device-kind nbd --transport $transport --lanes 2 | tee "$TMP/out"
	dev=$(device)
	[[ $dev = /dev/nbd0 ]] || fail "$dev"
	verify "$dev" --ioengine=libaio --direct=1 --iodepth=16
	verify "$dev" --ioengine=psync --direct=1
	verify "$dev" --ioengine=psync --end_fsync=1 --invalidate=1
	weft detach r
done

echo "== ext4: filled, checked, the same after a detach"
weft attach "$uri" --device /dev/nbd2 | tee "$TMP/out"
[[ $(device) = /dev/nbd2 ]] || fail "$(cat "$TMP/out")"
mkfs.ext4 -q /dev/nbd2
mkdir "$TMP/mnt"
mount -t ext4 /dev/nbd2 "$TMP/mnt"
cp -r fabric nbd-bridge "$TMP/mnt"
# Mapped memory, in files: fio's mmap engine removes the contents of a block device before it
# verifies them (MADV_REMOVE, on any device), and with an offset it mistakes its place.
fio --name=v --directory="$TMP/mnt" --size=4M --rw=randwrite --bssplit=4k/60:64k/30:1m/10 \
	--numjobs=4 --ioengine=mmap \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --end_fsync=1 --group_reporting \
	--minimal >"$TMP/fio" 2>&1 || fail "fio, mapped: $(cat "$TMP/fio")"
rm "$TMP"/mnt/v.*
refused '/dev/nbd2 is mounted on .*mnt (ext4)' weft detach r
weft status | grep -q 'device /dev/nbd2' || fail "$(weft status)"
umount "$TMP/mnt"
weft detach /dev/nbd2
weft attach "$uri" --device=/dev/nbd1 --read-only >"$TMP/out"
[[ $(device) = /dev/nbd1 && $(blockdev --getro /dev/nbd1) = 1 ]] || fail "$(cat "$TMP/out")"
refused 'not permitted\|Read-only' dd if=/dev/zero of=/dev/nbd1 bs=4k count=1
e2fsck -fn /dev/nbd1 || fail "fsck"
mount -t ext4 -o ro,noload /dev/nbd1 "$TMP/mnt"
diff -r fabric "$TMP/mnt/fabric" && diff -r nbd-bridge "$TMP/mnt/nbd-bridge" || fail "other files"
umount "$TMP/mnt"
weft detach r

echo "== discard, zeroes, swap, a process, what is cached"
weft attach "$uri" --device-kind nbd --socket "$TMP/s" >"$TMP/out"
dev=$(device)
random_file "$TMP/data" $((64 << 20))
cat "$TMP/data" >"$dev"
blkdiscard -o 0 -l $((1 << 20)) "$dev"
blkdiscard -z -o 0 -l $((8 << 20)) "$dev"
fallocate -z -o $((8 << 20)) -l 65536 "$dev"
dd if=/dev/zero of="$TMP/data" bs=1M count=8 conv=notrunc status=none
dd if=/dev/zero of="$TMP/data" bs=64k seek=128 count=1 conv=notrunc status=none
sync "$dev"
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/back"
cmp "$TMP/data" "$TMP/back" || fail "other bytes"
mkswap "$dev" >/dev/null
swapon "$dev"
refused "$dev is swap space" weft detach r
swapoff "$dev"
sleep 1000 <>"$dev" &
holder=$!
held() { [[ $(readlink "/proc/$holder/fd/0") = "$dev" ]]; }
wait_for held
refused "pid $holder (sleep) has it open" weft detach "$dev"
kill "$holder"
wait "$holder" || :
random_file "$TMP/data" $((64 << 20))
cat "$TMP/data" >"$dev" # in the kernel's cache, as far as that goes
weft detach r
nbdcopy "nbd://$RDMA_IP:$PORT/r" "$TMP/back"
cmp "$TMP/data" "$TMP/back" || fail "what was written is not with the donor"

echo "== two devices, and somebody else's"
weft attach "$uri" --device-kind nbd >"$TMP/out" && one=$(device)
weft attach "weft://$RDMA_IP:$PORT/q" --device-kind nbd >"$TMP/out" && two=$(device)
[[ $one = /dev/nbd0 && $two = /dev/nbd1 ]] || fail "$one $two"
[[ $(blockdev --getsize64 $one) = $((64 << 20)) && $(blockdev --getsize64 $two) = $((8 << 20)) ]] ||
	fail "sizes"
weft detach r
weft detach q
nbdkit -U "$TMP/other.sock" memory 1M
nbd-client -unix "$TMP/other.sock" /dev/nbd0 >/dev/null
weft attach "$uri" --device-kind nbd >"$TMP/out"
[[ $(device) != /dev/nbd0 ]] || fail "took somebody else's"
weft detach r
refused '/dev/nbd0 is in use by somebody else' weft attach "$uri" --device /dev/nbd0
[[ $(blockdev --getsize64 /dev/nbd0) = $((1 << 20)) ]] ||
	fail "somebody else's device is not what it was"
nbd-client -d /dev/nbd0 >/dev/null

echo "== force ends it under its users"
weft attach "$uri" --device-kind nbd >"$TMP/out"
mkfs.ext4 -q "$(device)"
mount -t ext4 "$(device)" "$TMP/mnt"
timeout 60 weft detach --force r
umount "$TMP/mnt"
stop_donor || fail "the donor's exit status: $?"
END
