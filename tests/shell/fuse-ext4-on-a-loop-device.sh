# SPDX-License-Identifier: MIT
# ext4 through a loop device on the FUSE file: a source tree is built there, and survives a new
# attachment.
# timeout: 300
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
[[ $EUID = 0 ]] || skip "loop devices need root"
need_tool losetup mkfs.ext4 e2fsck cmake ninja

start_donor --memory r=256M
weft attach "$URI" --mount "$TMP/file"
cleanup_add "losetup -j '$TMP/file' | cut -d: -f1 | xargs -r losetup -d"
loop=$(losetup --find --show --direct-io=on "$TMP/file") || skip "no loop device"
mkfs.ext4 -q "$loop"
mkdir "$TMP/mnt"
cleanup_add "! mountpoint -q '$TMP/mnt' || umount '$TMP/mnt'"
mount "$loop" "$TMP/mnt"
mkdir "$TMP/mnt/weft"
cp -r "$WEFT_SRC"/{CMakeLists.txt,fabric,nbd-bridge,perf,transports} "$TMP/mnt/weft"
cd "$TMP/mnt/weft"
cmake -G Ninja -S . -B out -DCMAKE_BUILD_TYPE=Debug -DWEFT_TESTS=OFF \
	-DWEFT_PERF=OFF >"$TMP/cmake" 2>&1 ||
	fail "$(tail -n 20 "$TMP/cmake")"
ninja -C out weft weft-list weft-serve >"$TMP/ninja" 2>&1 || fail "$(tail -n 40 "$TMP/ninja")"
out/bin/weft --version >"$TMP/version"
find . -type f -print0 | sort -z | xargs -0 sha256sum >"$TMP/sums"
cp "$TMP/sums" sums
(($(wc -l <sums) > 150)) || fail "not everything was built"
cd /
fstrim "$TMP/mnt" || fail "fstrim"
umount "$TMP/mnt"
losetup -d "$loop"
wait_for weft detach r
weft attach "$URI" --mount "$TMP/file" >/dev/null
e2fsck -fn "$TMP/file" >"$TMP/fsck" 2>&1 || fail "$(cat "$TMP/fsck")"
loop=$(losetup --find --show "$TMP/file")
mount "$loop" "$TMP/mnt"
cd "$TMP/mnt/weft"
sha256sum --quiet -c sums || fail "other bytes"
cmp sums "$TMP/sums"
out/bin/weft --version | cmp - "$TMP/version" || fail "what was built there runs no more"
cd /
answer=$(weft detach r 2>&1) && fail "detached under a loop device"
[[ $answer = *"$loop is a loop device on it"* ]] || fail "$answer"
umount "$TMP/mnt"
losetup -d "$loop"
wait_for weft detach r
