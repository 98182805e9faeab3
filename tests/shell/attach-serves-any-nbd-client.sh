# SPDX-License-Identifier: MIT
# The socket of an attachment serves stock NBD clients, over several connections.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdinfo nbdcopy qemu-img qemu-io fio

start_donor --memory r=64M
weft attach "$URI" --socket "$TMP/s" --lanes 4 >"$TMP/out"
grep -q 'transport tcp (auto: the donor offers only tcp), 4 lanes' "$TMP/out" ||
	fail "$(cat "$TMP/out")"
nbd="nbd+unix:///?socket=$TMP/s"
[[ $(nbdinfo --size "$nbd") = 67108864 ]] || fail "size"
nbdinfo --can multi-conn "$nbd" || fail "no multi-conn"
random_file "$TMP/image" 64M
nbdcopy --connections=4 "$TMP/image" "$nbd"
nbdcopy --connections=4 "$nbd" "$TMP/back"
cmp "$TMP/image" "$TMP/back"
qemu-img compare -f raw -F raw "$TMP/image" "$nbd" || fail "qemu-img compare"
random_file "$TMP/image" 64M
qemu-img convert -n -f raw -O raw -W -m 8 "$TMP/image" "$nbd"
qemu-img compare -f raw -F raw "$TMP/image" "$nbd" || fail "after qemu-img convert"
qemu-io -f raw "$nbd" -c 'write -P 0x5a 1000003 4099' -c 'write -z 1000100 100' \
	-c 'read -P 0x5a 1000003 97' \
	-c 'read -P 0 1000100 100' -c flush -c 'discard 2M 1M' -c 'write -f -P 1 3M 2M' \
	-c 'read -P 1 3M 2M' >"$TMP/qemu-io"
! grep -i 'fail\|error' "$TMP/qemu-io" || fail "qemu-io"
fio --name=v --ioengine=nbd --uri="$nbd" --rw=randrw --bsrange=512-256k --blockalign=512 \
	--iodepth=16 --numjobs=4 \
	--size=16M --offset_increment=16M --verify=crc32c --verify_state_save=0 \
	--group_reporting >"$TMP/fio" ||
	fail "fio: $(tail "$TMP/fio")"
weft detach r
[[ ! -e $TMP/s ]] || fail "the socket was left behind"
