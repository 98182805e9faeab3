# SPDX-License-Identifier: MIT
# timeout: 180
# One device over two donors: fio verify; each donor holds its stripes; one is killed and restarted
# under load, and nothing is missing; one is gone for good: what touches it fails, the rest works,
# and the status names it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio nbdcopy cmp jq qemu-io

socket="nbd+unix:///?socket=$TMP/s"
start_a() { WEFT_RUN_DIR=$TMP/a start_donor --listen 127.0.0.1:0 --memory r=9M --lease 20; }
start_b() { WEFT_RUN_DIR=$TMP/b start_donor --listen "127.0.0.1:${1:-0}" --memory r=8M --lease 20; }
# Donors in run directories of their own are ours to end.
end_donors() {
	local pid
	for pid in $(env -u WEFT_RUN_DIR grep -lzE "^WEFT_RUN_DIR=$TMP/[ab]$" /proc/[0-9]*/environ 2>/dev/null); do
		pid=${pid#/proc/}
		kill -KILL "${pid%/environ}" 2>/dev/null
	done
}
cleanup_add end_donors
mkdir -m 700 "$TMP/a" "$TMP/b"
start_a
A=$URI A_PORT=$PORT
start_b
B=$URI B_PORT=$PORT B_PID=$DONOR_PID

weft attach "$A" "$B" --name both --socket "$TMP/s" --lanes 2 --stripe-unit 64K --dead-timeout 30 |
	tee "$TMP/out"
grep -q "16 MiB" "$TMP/out" || fail "not the sum of equal parts"
grep -q "striped over 2 donors, 64 KiB at a time; .*1 MiB of the larger" "$TMP/out" ||
	fail "what is cut off is not said"

fio --name=v --ioengine=nbd --uri="$socket" --size=8M --numjobs=2 --offset_increment=8M \
	--rw=randwrite --bssplit=4k/50:64k/30:300k/20 \
	--bs_unaligned --iodepth=8 --verify=crc32c --verify_state_save=0 --do_verify=1 \
	--minimal >"$TMP/fio" || fail "fio: $(cat "$TMP/fio")"

# Where the bytes lie: stripe by stripe, one here and one there.
random_file "$TMP/data" $((16 << 20))
nbdcopy "$TMP/data" "$socket"
weft detach both
nbdcopy "nbd://127.0.0.1:$A_PORT/r" "$TMP/at.a"
nbdcopy "nbd://127.0.0.1:$B_PORT/r" "$TMP/at.b"
for ((i = 0; i < 16; i++)); do
	half=$TMP/at.a
	((i % 2 == 0)) || half=$TMP/at.b
	cmp -n 65536 -i "$((i * 65536)):$(((i - i % 2) * 32768))" "$TMP/data" "$half" ||
		fail "stripe $i is elsewhere"
done

weft attach "$A" "$B" --name both --socket "$TMP/s" --lanes 2 --stripe-unit 64K \
	--dead-timeout 30 >/dev/null
nbdcopy "$socket" "$TMP/back"
cmp "$TMP/data" "$TMP/back" || fail "other bytes after attaching again"
weft status both
weft status both --json |
	jq -e '.attachments[0].donors | length == 2 and .[1].uri == "'"$B"'"' >/dev/null ||
		fail "the status does not show each donor"
weft status --prometheus |
	grep "^weft_transport{name=\"both\",donor=\"$B\",transport=\"tcp\"} 1" >/dev/null ||
		fail "no metric for each donor"

# One is killed and comes back, under load.
fio --name=v --ioengine=nbd --uri="$socket" --size=16M --rw=randwrite --bssplit=4k/50:200k/50 \
	--iodepth=8 --verify=crc32c --verify_state_save=0 --do_verify=1 \
	--time_based --runtime=4 --verify_fatal=1 --minimal >"$TMP/fio" &
fio=$!
is_used() { [[ $(weft status both --json | jq '.attachments[0].requests.write') -gt 100 ]]; }
wait_for is_used
kill -KILL "$B_PID"
wait "$B_PID" || :
reconnects() { [[ $(weft status both --json | jq -r '.attachments[0].state') = reconnecting ]]; }
wait_for reconnects
weft status both --json | jq -r '.attachments[0].why' | grep -qF "$B: " ||
	fail "the status does not name the donor that is gone"
start_b "$B_PORT"
B_PID=$DONOR_PID
wait "$fio" || fail "fio across a donor's restart: $(cat "$TMP/fio") $(weft status both)"

# A bridge that was killed is taken over at both donors; with other stripes it is not.
bridge=$(weft status both --json | jq '.attachments[0].pid')
kill -KILL "$bridge"
wait_for gone "$bridge"
! weft attach "$A" "$B" --name both --socket "$TMP/s" --stripe-unit 4K 2>"$TMP/err" ||
	fail "other stripes were taken"
grep -q "would be scrambled" "$TMP/err" || fail "$(cat "$TMP/err")"
weft attach "$A" "$B" --name both --socket "$TMP/s" --lanes 2 --stripe-unit 64K --dead-timeout 1 |
	grep -q "taken over" || fail "not taken over"

# Gone for good.
kill -KILL "$B_PID"
wait "$B_PID" || :
is_dead() { [[ $(weft status both --json | jq -r '.attachments[0].state') = dead ]]; }
wait_for is_dead
io() { qemu-io -f raw -t none "$socket" -c "$1"; }
io 'read 0 64k' || fail "the donor that lives is not read"
io 'read 128k 4k' || fail "the donor that lives is not read behind the one that is gone"
! io 'read 64k 512' >"$TMP/err" 2>&1 || fail "read from a donor that is gone"
grep -q "Input/output error" "$TMP/err" || fail "$(cat "$TMP/err")"
! io flush >"$TMP/err" 2>&1 || fail "a FLUSH that one donor did not see"
grep -qF "$B: " <(weft status both) || fail "the status does not name it"
! weft detach --force both >"$TMP/out" 2>&1 || fail "the last FLUSH cannot have been carried out"
grep -q "is detached, but" "$TMP/out" || fail "$(cat "$TMP/out")"

# All or nothing: neither donor is held by an attach that failed.
! weft attach "$A" "$B" --name both --socket "$TMP/s" 2>"$TMP/err" || fail "attached to half of it"
weft attach "$A" --name alone --socket "$TMP/s2" --new-contents >/dev/null ||
	fail "the first donor was held"
weft detach alone
