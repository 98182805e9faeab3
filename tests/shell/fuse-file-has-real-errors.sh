# SPDX-License-Identifier: MIT
# The FUSE file does what a file of fixed size can, and says no to the rest with the right error.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"

start_donor --memory r=1M
weft attach "$URI" --mount "$TMP/file" >/dev/null
refused() { # TEXT COMMAND…
	local text=$1 answer
	shift
	answer=$("$@" 2>&1) && fail "went through: $*"
	[[ $answer = *"$text"* ]] || fail "$*: $answer"
}
refused 'Operation not permitted' truncate -s 0 "$TMP/file"
refused 'Operation not permitted' truncate -s 2M "$TMP/file"
refused 'Operation not permitted' chmod 644 "$TMP/file"
truncate -s 1M "$TMP/file" || fail "the same size"
refused 'No space left' dd if=/dev/zero of="$TMP/file" bs=4096 seek=256 count=1 conv=notrunc
head -c 1M /dev/zero | tr '\0' '\377' |
	dd of="$TMP/file" conv=notrunc,fsync status=none iflag=fullblock bs=1M
fallocate -p -o 4096 -l 8192 "$TMP/file"
fallocate -z -o 65536 -l 100 "$TMP/file"
refused 'No space left' fallocate -o 0 -l 2M "$TMP/file"
cmp -n 8192 -i 4096:0 "$TMP/file" /dev/zero || fail "a hole does not read as zeros"
cmp -n 100 -i 65536:0 "$TMP/file" /dev/zero || fail "zeroed range"
[[ $(tr -d '\0' <"$TMP/file" | wc -c) = $((1048576 - 8192 - 100)) ]] || fail "other bytes changed"
touch "$TMP/file"
weft detach r
weft attach "$URI" --mount "$TMP/file" --read-only >/dev/null
refused 'Read-only file system' dd if=/dev/zero of="$TMP/file" bs=1 count=1 conv=notrunc
cmp -n 8192 -i 4096:0 "$TMP/file" /dev/zero
weft detach r
