# SPDX-License-Identifier: MIT
# weft pull makes a file the same as a region and reads only what differs; a new file has holes and
# gets its name once it is complete; what does not fit is refused.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy

start_donor --allow-insecure --memory r=20000001
{
	head -c 5M /dev/urandom
	head -c 9M /dev/zero
	head -c 1M /dev/urandom
} >"$TMP/file"
weft push "$TMP/file" "$URI" >/dev/null || fail "push"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/region"
size=$(stat -c %s "$TMP/region")

pulled() { # BYTES [OPTION…]: what was read
	weft pull --json "$URI" "$TMP/copy" "${@:2}" >"$TMP/json" || fail "$(cat "$TMP/json")"
	jq -e --argjson n "$1" '.different_bytes == $n and .complete' "$TMP/json" >/dev/null ||
		fail "not $1 bytes: $(cat "$TMP/json")"
	cmp "$TMP/region" "$TMP/copy" || fail "not the same"
	[[ ! -e $TMP/copy.weft-pull ]] || fail "the file has two names"
}
pulled 6291456
(($(stat -c '%b' "$TMP/copy") * 512 < 8000000)) || fail "no holes: $(stat "$TMP/copy")"
pulled 0
printf x | dd of="$TMP/copy" bs=1 seek=9000000 conv=notrunc status=none
pulled 4096
printf x | dd of="$TMP/copy" bs=1 seek=100 conv=notrunc status=none
pulled 4096 --shared

# A pull that was cut off goes on from what there is.
mv "$TMP/copy" "$TMP/copy.weft-pull"
truncate -s 3M "$TMP/copy.weft-pull"
pulled $((6291456 - (3 << 20)))

weft pull "$URI" - >"$TMP/stream" || fail "to standard output"
cmp "$TMP/region" "$TMP/stream" || fail "standard output"
weft pull "$URI" - | head -c 10 >/dev/null || : # whoever reads may leave

printf more >>"$TMP/copy"
weft pull "$URI" "$TMP/copy" 2>"$TMP/err" && fail "a longer file was cut off"
grep -q 'nothing was changed' "$TMP/err" || fail "$(cat "$TMP/err")"
(($(stat -c %s "$TMP/copy") == size + 4)) || fail "it was changed"
weft pull "$URI" /dev/null 2>"$TMP/err" && fail "/dev/null is no file"
grep -q 'neither a file nor a block device' "$TMP/err" || fail "$(cat "$TMP/err")"

# Beside a writer only if it says so.
weft attach "$URI" --name writer --socket "$TMP/sock" >"$TMP/attach" 2>&1 ||
	fail "attach: $(cat "$TMP/attach")"
weft pull "$URI" "$TMP/other" 2>"$TMP/err" && fail "a pull beside a writer"
grep -q "is held by writer 'writer'" "$TMP/err" || fail "$(cat "$TMP/err")"
weft pull --shared "$URI" "$TMP/other" >/dev/null || fail "with --shared"
cmp "$TMP/region" "$TMP/other" || fail "not the same with --shared"
weft detach writer >/dev/null || fail "detach"
