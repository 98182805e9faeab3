# SPDX-License-Identifier: MIT
# tier: long
# timeout: 150
# weft verify finds what differs between copies, whoever caused it, and raises no alarm while the
# device is written.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"
need_tool fio

lend a
lend b
AB=("${COPY[a]}" "${COPY[b]}")
! weft verify "${AB[@]}" 2>"$TMP/err" || fail "compared what is no copy"
refused "no donor that answers has a copy there"
mirror a b || fail "$(cat "$TMP/err")"

# Small blocks again and again: at any time some writes have reached one copy alone.
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --size=4M --rw=randwrite --bs=4k \
	--iodepth=16 --time_based --runtime=60 --minimal >"$TMP/fio" 2>&1 &
fio=$!
is_written() { [[ $(weft status m --json | jq '.attachments[0].requests.write') -gt 500 ]]; }
wait_for is_written
for ((i = 0; i < 3; i++)); do
	weft verify m >"$TMP/out" || fail "a false alarm: $(cat "$TMP/out")"
done
gone "$fio" && fail "fio has ended: $(cat "$TMP/fio")"
kill "$fio"
wait "$fio" || :
weft verify m | grep -q "8 MiB of each copy compared, nothing differs" || fail "not compared"
weft verify "${AB[@]}" --json >"$TMP/json" || fail "exit status $?"
fits comparison "$TMP/json"
jq -e '.checked_bytes == 8388608 and .differing_bytes == 0' "$TMP/json" >/dev/null ||
	fail "not compared by URI"
detach

# Somebody changes a byte of one copy behind weft's back.
change_a_byte() { # DONOR [OFFSET]
	local fd memory=
	for fd in "/proc/${COPY_PID[$1]}/fd"/*; do
		[[ $(readlink "$fd") != /memfd:* || $(stat -L -c %s "$fd") != 8388608 ]] ||
			memory=$fd
	done
	[[ $memory ]] || fail "the donor's memory was not found"
	printf x | dd of="$memory" bs=1 seek=$((${2-1 << 20})) conv=notrunc status=none
}
change_a_byte b
status=0
weft verify "${AB[@]}" >"$TMP/out" || status=$?
((status == 3)) || fail "exit status $status: $(cat "$TMP/out")"
grep -q "4096 bytes from 1048576 on differ" "$TMP/out" || fail "$(cat "$TMP/out")"
weft verify "${AB[@]}" --json >"$TMP/json" || :
fits comparison "$TMP/json"
jq -e '.ranges[0].length_bytes == 4096' "$TMP/json" >/dev/null || fail "$(cat "$TMP/json")"
# What lies side by side is one.
for block in 1 2 4; do change_a_byte b $(((1 << 20) + block * 4096)); done
weft verify "${AB[@]}" >"$TMP/out" || :
grep -q "12288 bytes from 1048576 on differ" "$TMP/out" || fail "$(cat "$TMP/out")"
grep -q "4096 bytes from 1064960 on differ" "$TMP/out" || fail "$(cat "$TMP/out")"

# After a goodbye copies are not compared at the attach.  Of two nobody can tell which is right.
mirror a b || fail "$(cat "$TMP/err")"
! weft verify "${AB[@]}" --repair 2>"$TMP/err" || fail "repaired by URI"
refused "by its name"
status=0
weft verify m --repair >"$TMP/out" 2>"$TMP/err" || status=$?
((status == 3)) || fail "exit status $status: $(cat "$TMP/out")"
refused "nobody can tell which copy is right"
weft verify m --repair --from "${COPY[a]}" >"$TMP/out" || fail "$(cat "$TMP/out")"
grep -q "16 KiB differed, and were made the same" "$TMP/out" || fail "$(cat "$TMP/out")"
weft verify m >"$TMP/out" || fail "$(cat "$TMP/out")"
detach

# Of three most are right.
forget a b
for donor in a b c; do lend "$donor"; done
mirror a b c || fail "$(cat "$TMP/err")"
writes 5 || fail "$(cat "$TMP/io")"
change_a_byte a
weft verify m --repair --json >"$TMP/json" || fail "exit status $?: $(cat "$TMP/json")"
fits comparison "$TMP/json"
jq -e '.repaired_bytes == 4096 and .differing_bytes == 0' "$TMP/json" >/dev/null ||
	fail "$(cat "$TMP/json")"
reads 5 || fail "$(cat "$TMP/io")"
