# SPDX-License-Identifier: MIT
# weft push and weft pull over several donors: one region, striped as weft attach stripes it, of
# which only what differs travels, from one donor or from all; followed by its mark; refused in
# another order or with another unit; and one donor that is killed and comes back is waited for.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy python3

start_a() { WEFT_RUN_DIR=$TMP/a start_donor --allow-insecure --memory r=17M --lease 20; }
start_b() {
	WEFT_RUN_DIR=$TMP/b start_donor --allow-insecure --listen "127.0.0.1:${1:-0}" \
		--memory r=16M --lease 20
}
# Donors in run directories of their own are ours to end.
end_donors() {
	local pid
	for pid in $(env -u WEFT_RUN_DIR grep -lzE "^WEFT_RUN_DIR=$TMP/[ab]$" \
		/proc/[0-9]*/environ 2>/dev/null); do
		pid=${pid#/proc/}
		kill -KILL "${pid%/environ}" 2>/dev/null
	done
}
cleanup_add end_donors
mkdir -m 700 "$TMP/a" "$TMP/b"
start_a
A=$URI
start_b
B=$URI B_PORT=$PORT B_PID=$DONOR_PID

size=$((32 << 20))
random_file "$TMP/file" 30000017
random_file "$TMP/before" $size
pushed() { # BYTES: what was written
	weft push --json "$TMP/file" "$A" "$B" --stripe-unit 64K >"$TMP/json" ||
		fail "$(cat "$TMP/json")"
	jq -e --argjson n "$1" --arg uris "$A $B" '.different_bytes == $n and .complete and
		.transport == "tcp" and .uri == $uris and .region_bytes == 33554432' \
		"$TMP/json" >/dev/null || fail "not $1 bytes: $(cat "$TMP/json")"
}
pulled() { # BYTES: what was read
	weft pull --json "$A" "$B" "$TMP/copy" --stripe-unit 64K >"$TMP/json" ||
		fail "$(cat "$TMP/json")"
	jq -e --argjson n "$1" '.different_bytes == $n and .complete' "$TMP/json" >/dev/null ||
		fail "not $1 bytes: $(cat "$TMP/json")"
	cmp "$TMP/now" "$TMP/copy" || fail "the copy is another"
}
now() { # what an attachment of both has, in $TMP/now, which is FILE and what was there before
	weft attach "$A" "$B" --name both --socket "$TMP/s" --stripe-unit 64K --read-only >/dev/null
	nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/now" || fail "nbdcopy"
	weft detach both >/dev/null
	cmp -n 30000017 "$TMP/file" "$TMP/now" || fail "the file is not there"
	cmp -i 30000017 "$TMP/before" "$TMP/now" || fail "behind the end of the file"
}

weft push "$TMP/before" "$A" "$B" --stripe-unit 64K >"$TMP/said" || fail "the first push"
grep -qF "are now at $A $B, in " "$TMP/said" || fail "said: $(cat "$TMP/said")"
pushed 30000017
pushed 0
now
pulled $size
# A byte on both sides of stripes' ends, at one donor, at the other, and in the last block.
python3 - "$TMP/file" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    for at in (0, 65535, 65536, 131071, 131072, (4 << 20) - 1, 4 << 20, 30000016):
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))
PY
pushed $((7 * 4096 + 30000017 % 4096))
now
# Of the last one the whole block of the region differs.
pulled $((8 * 4096))
pulled 0
weft pull "$A" "$B" --stripe-unit 64K - >"$TMP/stream" || fail "to standard output"
cmp "$TMP/now" "$TMP/stream" || fail "standard output"

# What it is as another device is refused, unless it is given up.
refused() { # OPTION… URI…
	! weft push "$TMP/file" "$@" 2>"$TMP/err" >/dev/null || fail "pushed: $*"
	grep -q 'part [12] of 2' "$TMP/err" || fail "$*: $(cat "$TMP/err")"
}
refused "$B" "$A" --stripe-unit 64K
refused "$A" "$B"
refused "$A"
! weft pull "$A" "$B" "$TMP/copy" >/dev/null 2>&1 || fail "pulled with another unit"
cmp "$TMP/now" "$TMP/copy" || fail "the copy was changed"

# A state of both donors is followed by its mark.
weft pull --watch --interval 0.1 --json "$A" "$B" "$TMP/copy" --stripe-unit 64K >"$TMP/follows" &
follower=$!
printf 'marked' | dd of="$TMP/file" bs=1 seek=65533 conv=notrunc status=none
weft push --mark "$TMP/file" "$A" "$B" --stripe-unit 64K >/dev/null || fail "push --mark"
is_marked() { cmp -s -n 30000017 "$TMP/file" "$TMP/copy"; }
wait_for is_marked
kill -TERM "$follower"
wait "$follower" || fail "the follower: $(cat "$TMP/follows")"

# One donor is killed in the middle, and comes back.
random_file "$TMP/file" 30000017
mkfifo "$TMP/pipe"
weft push - "$A" "$B" --stripe-unit 64K <"$TMP/pipe" >"$TMP/said" 2>&1 &
push=$!
exec 9>"$TMP/pipe"
head -c 20000000 "$TMP/file" >&9
kill -KILL "$B_PID"
wait "$B_PID" || :
tail -c +20000001 "$TMP/file" >&9 &
feed=$!
exec 9>&-
start_b "$B_PORT"
wait "$feed" "$push" || fail "across a donor's restart: $(cat "$TMP/said")"
now

weft push "$TMP/file" "$A" "$B" --new-contents >"$TMP/said" || fail "--new-contents"
grep -q ' differed and are now at' "$TMP/said" || fail "$(cat "$TMP/said")"
pulled_default() { weft pull "$A" "$B" "$TMP/other" >/dev/null; }
pulled_default && cmp -n 30000017 "$TMP/file" "$TMP/other" || fail "in stripes of 256 KiB"
