# SPDX-License-Identifier: MIT
# A region moves to another donor under a bridge's socket and file, while they are written with
# checks: no error, no wrong byte, the same epoch; the bridge goes on at the other donor, and the
# first one says where the region is.
# timeout: 240
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio jq qemu-io nbdcopy

start_donor --memory r=64M --memory f=16M
from=weft://127.0.0.1:$PORT giver=$DONOR_PID giver_log=$DONOR_LOG
start_donor --memory mine=1M --take 256M
to=weft://127.0.0.1:$PORT taker_log=$DONOR_LOG

# end_fio: told to end, it says whether all that it read was right.
end_fio() {
	kill -INT $fio
	wait $fio || :
	grep -q "err= 0" "$TMP/fio" || fail "fio: $(tail "$TMP/fio")"
}
# of NAME FILTER: of an attachment's status.
of() {
	weft status "$1" --json | jq -e ".attachments[0] | $2" >/dev/null
}
random_file "$TMP/contents" 16777216
weft attach "$from/r" --socket "$TMP/s" --name r --lanes 2 || fail "attach"
epoch=$(weft status r --json | jq -r '.attachments[0].epoch')
nbdcopy "$TMP/contents" "nbd+unix:///?socket=$TMP/s" || fail "nothing can be written"
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=rw --bsrange=4k-64k \
	--iodepth=8 --offset=16m --size=48m --io_size=100g --time_based --runtime=600 \
	--rate=4m,4m --verify=crc32c --verify_backlog=64 --verify_state_save=0 \
	--verify_fatal=1 >"$TMP/fio" 2>&1 &
fio=$!
wait_for -t 60 of r '.requests.write > 200'
if ! weft move "$from/r" "$to" >"$TMP/out" 2>"$TMP/err"; then
	fail "$(cat "$TMP/err" "$giver_log" "$taker_log")"
fi
cat "$TMP/out"
! gone $fio || fail "fio: $(tail "$TMP/fio")"
wait_for -t 60 of r '.donors[0].uri | startswith("'"$to"'")'
writes=$(weft status r --json | jq '.attachments[0].requests.write')
wait_for -t 60 of r ".requests.write > $writes + 200"
end_fio
of r '.errors == 0 and .state == "ready" and .epoch == "'"$epoch"'"' ||
	fail "$(weft status r --json)"

echo "the first donor"
qemu-io -f raw -c 'read 0 4k' "nbd${from#weft}/r" >"$TMP/out" 2>&1 && fail "it is lent still"
grep -qF "MOVED: $to/r has the region now" "$TMP/out" || fail "$(<"$TMP/out")"
weft detach r || fail "detach"
weft pull "$to/r" "$TMP/there" >/dev/null || fail "pull"
cmp -n 16777216 "$TMP/contents" "$TMP/there" || fail "other contents"

echo "a file, which is written meanwhile, and called otherwise there"
if [[ -w /dev/fuse ]]; then
	weft attach "$from/f" --mount "$TMP/file" --name f || fail "attach"
	dd if="$TMP/contents" of="$TMP/file" bs=1M conv=notrunc,fsync status=none
	fio --name=v --filename="$TMP/file" --ioengine=psync --rw=randwrite --bs=4k --size=8m \
		--io_size=100g --time_based --runtime=600 --rate=5m --verify=crc32c \
		--verify_backlog=64 --verify_state_save=0 --verify_fatal=1 >"$TMP/fio" 2>&1 &
	fio=$!
	wait_for -t 60 of f '.requests.write > 100'
	weft move "$from/f" "$to/g" >"$TMP/out" 2>"$TMP/err" ||
		fail "$(cat "$TMP/err" "$giver_log" "$taker_log")"
	cat "$TMP/out"
	writes=$(weft status f --json | jq '.attachments[0].requests.write')
	wait_for -t 60 of f ".requests.write > $writes + 100"
	end_fio
	cmp -i 8388608 "$TMP/contents" "$TMP/file" || fail "other contents"
	of f '.errors == 0 and .donors[0].region == "g"' || fail "$(weft status f --json)"
	weft detach f || fail "detach"
fi

# Nothing of theirs is at the first donor any more, which may end.
weft list "$from" | grep -qx "no regions" || fail "$(weft list "$from")"
kill "$giver"
wait "$giver" || fail "the first donor: exit status $?"
