# SPDX-License-Identifier: MIT
# weft push makes a region the same as a file, writes only the blocks that differ, and leaves the
# rest of the region alone; from a pipe too; again and again.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy python3

start_donor --allow-insecure --memory r=40M
# Its end is no whole block.
head -c 20000017 /dev/urandom >"$TMP/file"
head -c $((40 << 20)) /dev/urandom >"$TMP/before"
weft push "$TMP/before" "$URI" >"$TMP/said" || fail "the first push: $(cat "$TMP/said")"
grep -q '40 MiB compared, 40 MiB differed' "$TMP/said" || fail "said: $(cat "$TMP/said")"

same() { # that the region is FILE, and behind its end what was there before
	nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/now" || fail "nbdcopy"
	cmp -n "$(stat -c %s "$1")" "$1" "$TMP/now" || fail "$1 is not at the donor"
	cmp -i "$(stat -c %s "$1")" "$TMP/before" "$TMP/now" || fail "behind the end of $1"
}
pushed() { # BYTES FILE: what was written
	weft push --json "${2-$TMP/file}" "$URI" >"$TMP/json" || fail "$(cat "$TMP/json")"
	jq -e --argjson n "$1" '.different_bytes == $n and .complete and .transport == "tcp" and
		.compared_bytes == 20000017 and .region_bytes == 41943040 and .hash_bytes > 0 and
		.seconds > 0 and (keys | length) == 9' "$TMP/json" >/dev/null ||
		fail "not $1 bytes: $(cat "$TMP/json")"
}

pushed 20000017
same "$TMP/file"
pushed 0
# A byte here and there: in the first block, on both sides of a leaf's and of a chunk's end, and in
# the last block, which has 17 + 3 * 4096 - … bytes.
python3 - "$TMP/file" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    for at in (0, 65535, 65536, (4 << 20) - 1, 4 << 20, 10000000, 20000016):
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))
PY
pushed $((6 * 4096 + 20000017 % 4096))
same "$TMP/file"
# The same from a pipe.
head -c 4096 /dev/zero | dd of="$TMP/file" bs=4096 seek=77 conv=notrunc status=none
pushed 4096 - < <(cat "$TMP/file")
same "$TMP/file"
# Holes are zeros.
truncate -s 20000017 "$TMP/holes"
weft push "$TMP/holes" "$URI" >/dev/null || fail "holes"
same "$TMP/holes"

# Nothing is written of a file that does not fit.
truncate -s $(((40 << 20) + 1)) "$TMP/large"
weft push "$TMP/large" "$URI" 2>"$TMP/err" && fail "a file was pushed that does not fit"
grep -q 'nothing was written' "$TMP/err" || fail "$(cat "$TMP/err")"
same "$TMP/holes"
head -c 8M /dev/zero | cat "$TMP/before" - | weft push - "$URI" 2>"$TMP/err" &&
	fail "an input was pushed that does not fit"
grep -q 'standard input is longer than the region' "$TMP/err" || fail "$(cat "$TMP/err")"
