# SPDX-License-Identifier: MIT
# The FUSE file holds what was written, with read(2) and write(2), O_DIRECT, and mapped, in blocks
# of 4 KiB to 1 MiB.
# timeout: 240
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool fio

start_donor --memory r=64M
weft attach "$URI" --mount "$TMP/file"
[[ $(stat -c '%s %F %a' "$TMP/file") = '67108864 regular file 600' ]] || fail "$(stat "$TMP/file")"
random_file "$TMP/image" 64M
dd if="$TMP/image" of="$TMP/file" bs=300000 conv=notrunc,fsync status=none
cmp "$TMP/image" "$TMP/file"
verify() {
	fio --name=v --filename="$TMP/file" --size=64M --verify=crc32c \
		--verify_state_save=0 "$@" >"$TMP/fio" ||
		fail "fio $*: $(tail "$TMP/fio")"
}
for engine in psync mmap; do
	verify --ioengine=$engine --rw=randwrite --bs=4k --io_size=8M
	verify --ioengine=$engine --rw=randrw --bsrange=4k-1m --io_size=64M --fsync=20
	verify --ioengine=$engine --rw=write --bs=1m
done
verify --ioengine=libaio --direct=1 --iodepth=16 --rw=randrw --bsrange=4k-1m --io_size=64M
weft detach r
[[ ! -e $TMP/file ]] || fail "the file was left behind"
