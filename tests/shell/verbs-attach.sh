# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# presets: dev asan
# processors: 2
# weft serve and weft attach over soft-RoCE: which transport is taken and why, fio verify and whole
# copies, a donor that is stopped (nobody needs it), killed and restarted (nothing is lost), a file
# region.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio nbdcopy cmp

in_testbed --timeout 500 --memory 2G <<'END'
dd if=/dev/zero of="$TMP/file" bs=1M count=4 status=none
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=104M --file "f=$TMP/file" --lease 20
grep -q "over RDMA" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
weft list "weft://$RDMA_IP:$PORT" | tee "$TMP/list"
grep -q "^r .*tcp,rdma:$PORT" "$TMP/list" || fail "what r is offered over"
grep -q "^f .*tcp,rdma:$PORT" "$TMP/list" || fail "what f is offered over"
uri=weft://$RDMA_IP:$PORT/r socket="nbd+unix:///?socket=$TMP/s"

echo "== auto takes RDMA"
weft attach "$uri" --socket "$TMP/s" --lanes 2 | tee "$TMP/out"
grep -q 'transport rdma (auto: the donor offers tcp,rdma' "$TMP/out" || fail "$(cat "$TMP/out")"
weft status | tee "$TMP/status"
grep -q '^  .*; transport rdma (auto: .*), in plaintext, 2 lanes' "$TMP/status" ||
	fail "no transport in the status, or it does not say that it is in plaintext"
grep -q "^  region r: used by attachment 'r' (writer) from $RDMA_IP over rdma, in plaintext, 2 " \
	"$TMP/status" || fail "the donor does not say that RDMA is in plaintext"
grep -q "^  over rdma rxe0 gid [0-9]* $RDMA_IP:[0-9]* -> $RDMA_IP:" "$TMP/out" ||
	fail "no device and GID: $(cat "$TMP/out")"
grep -q "^  lane 0 goes over rdma rxe0 gid [0-9]* $RDMA_IP:" "$TMP/status" ||
	fail "no device and GID in the status"

echo "== fio verifies, over two connections"
fio --name=v --ioengine=nbd --uri="$socket" --size=32M --rw=randwrite --bssplit=4k/60:64k/30:1m/10 \
	--iodepth=16 \
	--numjobs=2 --offset_increment=32M --verify=crc32c --do_verify=1 --group_reporting \
	--minimal >"$TMP/fio" || fail "fio: $(cat "$TMP/fio")"

echo "== with the donor stopped, a whole copy there and back"
random_file "$TMP/data" $((104 << 20))
kill -STOP "$DONOR_PID"
timeout 100 nbdcopy "$TMP/data" "$socket" || fail "nbdcopy to it"
timeout 100 nbdcopy "$socket" "$TMP/back" || fail "nbdcopy from it"
kill -CONT "$DONOR_PID"
cmp "$TMP/data" "$TMP/back" || fail "other bytes"
rm "$TMP/back"

echo "== a donor killed and restarted has the same bytes"
holder_of() { pgrep -x weftholder; }
wait_for holder_of
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" || :
start_donor --listen "$RDMA_IP:$PORT" --allow-insecure --memory r=104M --file "f=$TMP/file" \
	--lease 20
timeout 100 nbdcopy "$socket" "$TMP/back" || fail "nbdcopy after the restart: $(weft status)"
cmp "$TMP/data" "$TMP/back" || fail "other bytes after the restart"
weft detach r
rm "$TMP/back"

echo "== as told"
weft attach "$uri" --socket "$TMP/s" --transport rdma | tee "$TMP/out"
grep -q 'transport rdma (as told), in plaintext, 2 lanes' "$TMP/out" || fail "$(cat "$TMP/out")"
weft detach r
weft attach "$uri" --socket "$TMP/s" --transport tcp | tee "$TMP/out"
grep -q 'transport tcp (as told)' "$TMP/out" || fail "$(cat "$TMP/out")"
timeout 100 nbdcopy "$socket" "$TMP/back" && cmp "$TMP/data" "$TMP/back" ||
	fail "other bytes over TCP"
weft detach r

echo "== a file, too"
weft attach "weft://$RDMA_IP:$PORT/f" --socket "$TMP/s" | tee "$TMP/out"
grep -q 'transport rdma (auto: the donor offers tcp,rdma' "$TMP/out" || fail "$(cat "$TMP/out")"
timeout 100 nbdcopy "$socket" "$TMP/back" && cmp "$TMP/file" "$TMP/back" ||
	fail "other bytes in a file"
weft detach f
stop_donor || fail "the donor's first exit status: $?"

echo "== a donor on every address says where it has RDMA"
start_donor --listen 0.0.0.0:0 --allow-insecure --memory r=8M
weft attach "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" --transport rdma | tee "$TMP/out"
grep -q "over rdma rxe0 gid [0-9]* $RDMA_IP:[0-9]* -> $RDMA_IP:" "$TMP/out" ||
	fail "$(cat "$TMP/out")"
weft detach r
stop_donor || fail "the donor's exit status: $?"

echo "== a donor that is told not to offers TCP only"
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=8M --rdma off
! grep -q "over RDMA" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
weft list "weft://$RDMA_IP:$PORT" | grep -q "^r .* tcp  " ||
	fail "what it offers: $(weft list "weft://$RDMA_IP:$PORT")"
stop_donor || fail "the donor's exit status: $?"

echo "== a way without RDMA: TCP, and it says why"
start_donor --memory r=8M
weft attach "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" | tee "$TMP/out"
grep -q 'transport tcp (auto: RDMA was tried: ' "$TMP/out" || fail "$(cat "$TMP/out")"
weft detach r
! weft attach "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" --transport rdma >"$TMP/out" 2>&1 ||
	fail "RDMA over lo"
cat "$TMP/out"
stop_donor || fail "the donor's exit status: $?"
wait_for_none() { ! pgrep -x 'weft-attach|weft-serve' >/dev/null; }
wait_for wait_for_none
END
