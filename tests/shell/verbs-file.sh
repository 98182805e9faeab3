# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# presets: dev asan
# processors: 2
# A file region over soft-RoCE: what was flushed is in the file whatever dies, what was not flushed
# gets there too once the borrower leaves, dies, or is silent; others see the same bytes meanwhile
# over TCP.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio nbdcopy cmp qemu-io jq

in_testbed --timeout 500 --memory 2G <<'END'
file=$TMP/dir/f uri=nbd+unix:///?socket=$TMP/s size=$((8 << 20 | 777))
mkdir -p "$TMP/dir/sub"
random_file "$file" $size
cp "$file" "$TMP/expected"

donor() { # ARGUMENT…
	start_donor --listen "$RDMA_IP:${PORT:-0}" --allow-insecure --lease 4 "$@"
}
attach() { # REGION ARGUMENT…: over RDMA, whatever time this machine takes over it
	weft attach "weft://$RDMA_IP:$PORT/$1" --socket "$TMP/s" --transport rdma \
		--wait 20 "${@:2}" >"$TMP/out" 2>&1 ||
		fail "attach: $(cat "$TMP/out")"
}
# patch FILE BYTE OFFSET LENGTH: in the copy of what is expected
patch() {
	head -c "$4" /dev/zero | tr '\0' "\\$(printf %o "$2")" |
		dd of="$1" bs=64K oflag=seek_bytes seek="$3" conv=notrunc status=none
}
# open_writer: a client that is told what to do on descriptor 7, and flushes nothing by itself.
open_writer() {
	mkfifo "$TMP/commands"
	stdbuf -oL qemu-io -t writeback -f raw "$uri" <"$TMP/commands" >"$TMP/answers" 2>&1 &
	writer=$!
	exec 7>"$TMP/commands"
	rm "$TMP/commands"
}
wrote() { (($(grep -c 'wrote ' "$TMP/answers") >= $1)); }
writes() { # COMMAND…: one after the other is answered then
	local command answers
	for command; do
		answers=$(grep -c 'wrote ' "$TMP/answers") || :
		echo "$command" >&7
		wait_for -t 30 wrote $((answers + 1))
	done
}
kill_writer() {
	kill -KILL $writer
	wait $writer 2>/dev/null || :
	exec 7>&-
}
same() { cmp "$TMP/expected" "$file" >/dev/null 2>&1; }

donor --file "f=$file"
weft list "weft://$RDMA_IP:$PORT" | tee "$TMP/list"
grep -q "^f .*tcp,rdma:$PORT" "$TMP/list" || fail "what f is offered over"

echo "== every byte of an odd size"
attach f --lanes 2
timeout 60 nbdcopy "$uri" "$TMP/back"
cmp "$TMP/back" "$file" || fail "other bytes"

echo "== a write on one lane, FLUSH on another, donor killed"
open_writer
writes 'write -P 0xa1 0 1M' 'write -P 0xa2 3000000 5000' 'write -P 0xa3 8388608 512'
patch "$TMP/expected" 0xa1 0 1M
patch "$TMP/expected" 0xa2 3000000 5000
patch "$TMP/expected" 0xa3 8388608 512
! same || fail "in the file without a FLUSH: this shows nothing"
qemu-io -f raw "$uri" -c flush >/dev/null || fail "FLUSH"
weft status f --json |
	jq -e '[.attachments[0].lanes[].requests | . > 0] == [true, true]' >/dev/null ||
	fail "not on two lanes: $(weft status f --json)"
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" 2>/dev/null || :
same || fail "the file does not hold what was flushed"
kill_writer
donor --file "f=$file"
stale() { [[ $(weft status f --json | jq -r '.attachments[0].state') = stale ]]; }
wait_for -t 30 stale
! weft detach --force f >"$TMP/out" 2>&1 || fail "what was there is gone, and detach did not say so"

echo "== not flushed, and detached"
attach f --lanes 2
open_writer
writes 'write -P 0xb1 1048576 1M'
patch "$TMP/expected" 0xb1 1M 1M
! same || fail "in the file without a FLUSH"
kill_writer
weft detach f || fail "detach"
wait_for same
stock() { timeout 30 nbdcopy "nbd://$RDMA_IP:$PORT/f" "$TMP/back" 2>/dev/null; }
wait_for stock
cmp "$TMP/back" "$TMP/expected" || fail "a stock client sees other bytes"

echo "== a reader over TCP beside the writer; then the bridge is killed"
attach f --lanes 2
open_writer
writes 'write -P 0xc1 2097152 1M'
patch "$TMP/expected" 0xc1 2M 1M
mkdir -m 700 "$TMP/run2"
WEFT_RUN_DIR=$TMP/run2 weft attach "weft://$RDMA_IP:$PORT/f" --socket "$TMP/s2" --shared \
	--transport tcp >/dev/null
timeout 60 nbdcopy "nbd+unix:///?socket=$TMP/s2" "$TMP/back"
cmp "$TMP/back" "$TMP/expected" || fail "the reader sees other bytes"
! same || fail "in the file without a FLUSH"
bridge=$(weft status f --json | jq '.attachments[0].pid')
kill -KILL "$bridge"
wait_for same
timeout 60 nbdcopy "nbd+unix:///?socket=$TMP/s2" "$TMP/back"
cmp "$TMP/back" "$TMP/expected" || fail "the reader sees other bytes after that"
kill_writer
WEFT_RUN_DIR=$TMP/run2 weft detach f
weft detach --force f >/dev/null 2>&1 || :

echo "== a bridge that is silent: written back after its lease; it goes on, and its FLUSH counts"
attach f --lanes 2
open_writer
writes 'write -P 0xd1 3145728 1M'
patch "$TMP/expected" 0xd1 3M 1M
bridge=$(weft status f --json | jq '.attachments[0].pid')
kill -STOP "$bridge"
wait_for -t 30 same
kill -CONT "$bridge"
writes 'write -P 0xd2 4194304 1M'
patch "$TMP/expected" 0xd2 4M 1M
qemu-io -f raw "$uri" -c flush >/dev/null || fail "FLUSH after that"
same || fail "the file does not hold what was flushed after that"
kill_writer
weft detach f || fail "detach"

echo "== fio, verified, with FLUSHes and FUA, over two lanes"
attach f --lanes 2
fio --name=v --ioengine=nbd --uri="$uri" --size=4M --rw=randwrite --bssplit=4k/60:64k/40 \
	--iodepth=8 --fsync=7 \
	--numjobs=2 --offset_increment=4M --verify=crc32c --do_verify=1 --minimal >"$TMP/fio" ||
		fail "fio: $(cat "$TMP/fio")"
qemu-io -f raw "$uri" -c 'write -f -P 0xe1 5000000 12345' >/dev/null || fail "FUA"
timeout 60 nbdcopy "$uri" "$TMP/expected"
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" 2>/dev/null || :
weft detach --force f >/dev/null 2>&1 || :
same || fail "the file is not what was read"

echo "== read-only, and a directory's files"
donor --directory "$TMP/dir" --read-only
attach f --read-only
timeout 60 nbdcopy "$uri" "$TMP/back"
cmp "$TMP/back" "$file" || fail "other bytes"
weft detach f
stop_donor || fail "the donor's exit status: $?"
truncate -s 1M "$TMP/dir/sub/g"
donor --directory "$TMP/dir"
attach sub/g --name g
qemu-io -f raw "$uri" -c 'write -P 0x77 4096 4096' -c flush >/dev/null || fail "write"
weft detach g
[[ $(head -c 8192 "$TMP/dir/sub/g" | tail -c 4096 | tr -d w | wc -c) = 0 ]] ||
	fail "sub/g has other bytes"

echo "== one that does not fit: TCP, and it says why"
truncate -s 64G "$TMP/dir/big"
weft attach "weft://$RDMA_IP:$PORT/big" --socket "$TMP/s" | tee "$TMP/out"
grep -q 'transport tcp (auto: RDMA was tried: .*can be had' "$TMP/out" || fail "it did not say why"
weft detach big
! weft attach "weft://$RDMA_IP:$PORT/big" --socket "$TMP/s" --transport rdma >"$TMP/out" 2>&1 ||
	fail "64 GiB fit"
grep -q 'can be had' "$TMP/out" || fail "$(cat "$TMP/out")"
stop_donor || fail "the donor's exit status: $?"
ended() { ! pgrep -x 'weft-attach|weft-serve' >/dev/null; }
wait_for ended
END
