# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# weft attach at Linux's SRP target: what is refused and how, fio verify over a socket and a ublk
# device, TRIM; a target that goes: stale, or with --assume-stable no error and no wrong byte; a
# unit that is another one.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq nbdcopy cmp

in_testbed --timeout 800 --memory 2G <<'END'
. tests/srpt.sh
srpt_disk d $((64 << 20))
put $srpt_core/fileio_0/d/attrib/emulate_write_cache 1
srpt_serve fileio_0/d
uri=srp://$RDMA_IP:$SRPT_PORT/$SRPT_GUID socket="nbd+unix:///?socket=$TMP/s"
refused() { # PATTERN URI OPTION…
	! weft attach "$2" --socket "$TMP/s" "${@:3}" >"$TMP/out" 2>&1 || fail "$2 was attached"
	cat "$TMP/out"
	grep -q -e "$1" "$TMP/out" || fail "it does not say: $1"
}
is() { # STATE
	[[ $(weft status d --json | jq -r '.attachments[0].state') = "$1" ]]
}
verify() { # FILE MORE…
	fio --name=v "$@" --size=24M --rw=randwrite --bssplit=4k/60:64k/30:1m/10 --iodepth=16 \
		--verify=crc32c --do_verify=1 --group_reporting --minimal >"$TMP/fio" 2>&1 ||
		fail "fio: $(cat "$TMP/fio")"
}

echo "== what is refused"
refused 'no port' "srp://$RDMA_IP/$SRPT_GUID"
refused 'no unit of an SRP target' "srp://$RDMA_IP:$SRPT_PORT/scratch"
refused 'over SRP: nobody listens there; is an SRP target running there' \
	"srp://$RDMA_IP:5556/$SRPT_GUID"
refused 'no target port 0000000000000012.0000000000000034' "srp://$RDMA_IP:$SRPT_PORT/12.34"
refused 'there is no unit of this number' "$uri/4"
echo "alice:$(printf '%064d' 7)" >"$TMP/key"
chmod 600 "$TMP/key"
refused 'nothing there proves a key' "$uri" --key "$TMP/key"
refused 'an SRP target speaks SRP only' "$uri" --transport tcp

echo "== fio verifies, over two lanes"
weft attach "$uri" --name d --socket "$TMP/s" --lanes 2 | tee "$TMP/out"
grep -q 'transport srp (.*), in plaintext, 2 lanes' "$TMP/out" || fail "$(cat "$TMP/out")"
grep -q 'over srp rxe0 gid .* LIO-ORG FILEIO, serial weft-d' "$TMP/out" || fail "no path"
grep -q -e --assume-stable "$TMP/out" || fail "it does not say what a lost connection means"
weft status | tee "$TMP/status"
grep -q 'transport srp (.*), in plaintext, 2 lanes' "$TMP/status" || fail "no transport"
verify --ioengine=nbd --uri="$socket" --numjobs=2 --offset_increment=32M
nbdcopy "$socket" "$TMP/back"
cmp "$TMP/back" "$TMP/d" || fail "the target has other bytes"

echo "== a target that goes leaves it stale"
srpt_stop
wait_for is stale
srpt_start
! nbdcopy "$socket" - >/dev/null 2>&1 || fail "a read after the loss went through"
weft detach d --force 2>/dev/null || :

echo "== a ublk device, its file system, TRIM"
weft attach "$uri" --name d --device --lanes 2 | tee "$TMP/out"
device=$(weft status d --json | jq -r '.attachments[0].device')
verify --ioengine=libaio --direct=1 --filename="$device"
mkfs.ext4 -q "$device"
mkdir "$TMP/mnt"
mount -t ext4 "$device" "$TMP/mnt"
cp -r tests/shell "$TMP/mnt/"
sync
diff -r tests/shell "$TMP/mnt/shell" || fail "other files"
fstrim -v "$TMP/mnt"
umount "$TMP/mnt"
fsck.ext4 -fn "$device" >/dev/null || fail "the file system is damaged"
blkdiscard -z "$device"
cmp -n $((64 << 20)) "$device" /dev/zero || fail "not all of it is zeros"
weft detach d

echo "== with --assume-stable it goes on, under fio"
weft attach "$uri" --name d --socket "$TMP/s" --lanes 2 --assume-stable >"$TMP/out"
verify --ioengine=nbd --uri="$socket" --numjobs=2 --offset_increment=32M --loops=3 &
fio=$!
for _ in 1 2 3; do
	sleep 2
	srpt_stop
	sleep 1
	srpt_start
done
wait $fio || fail "fio had an error: $(weft status d)"
weft status d
[[ $(weft status d --json | jq '.attachments[0].reconnects') -ge 1 ]] || fail "nothing was lost"
nbdcopy "$socket" "$TMP/back"
cmp "$TMP/back" "$TMP/d" || fail "the target has other bytes"

echo "== but not with another unit"
srpt_stop
wait_for is reconnecting
echo weft-other >$srpt_core/fileio_0/d/wwn/vpd_unit_serial 2>/dev/null || {
	# A serial number is kept while the unit is exported.
	rm "$srpt_tpg/acls/$RDMA_IP/lun_0/disk" "$srpt_tpg/lun/lun_0/disk"
	put $srpt_core/fileio_0/d/wwn/vpd_unit_serial weft-other
	ln -s "$srpt_core/fileio_0/d" "$srpt_tpg/lun/lun_0/disk"
	ln -s "$srpt_tpg/lun/lun_0" "$srpt_tpg/acls/$RDMA_IP/lun_0/disk"
}
srpt_start
wait_for is stale
weft status d | tee "$TMP/status"
grep -q 'another device' "$TMP/status" || fail "it does not say why"
weft detach d --force 2>/dev/null || :
END
