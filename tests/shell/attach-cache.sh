# SPDX-License-Identifier: MIT
# A managed attachment: what it serves is right, what was flushed is at the donor, status shows what
# the cache does.
# presets: dev asan
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio jq nbdcopy cmp qemu-io

start_donor --memory r=64M
weft attach "$URI" --socket "$TMP/s" --cache 16M --lanes 2 --pull >"$TMP/said" || fail "attach"
grep -q 'cache 16 MiB in chunks of .*, write-back, pulling' "$TMP/said" ||
	fail "it said: $(cat "$TMP/said")"

# Four times the cache, so that chunks are driven out while others are written back.
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randwrite --bs=4k-64k \
	--size=64M --iodepth=16 \
	--verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed=7 --end_fsync=1 \
	--output-format=terse >"$TMP/fio" || fail "fio: $(cat "$TMP/fio")"
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/seen" || fail "nbdcopy"

weft status r >"$TMP/status"
grep -q 'cache 16 MiB in chunks of' "$TMP/status" || fail "status: $(cat "$TMP/status")"
cache() { weft status r --json | jq ".attachments[0].cache.$1"; }
(($(cache pushed_bytes) > 48 << 20)) || fail "pushed $(cache pushed_bytes)"
(($(cache valid_bytes) <= 16 << 20)) || fail "holds $(cache valid_bytes)"
# shellcheck disable=SC2317 # wait_for calls it
clean() { (($(cache dirty_bytes) == 0)); }
wait_for clean

# What is written last is written back by the detach; while the donor does not take it, there is
# none.
head -c 1M /dev/urandom >"$TMP/last"
kill -STOP "$DONOR_PID"
nbdcopy "$TMP/last" "nbd+unix:///?socket=$TMP/s" || fail "nbdcopy to it"
weft detach r 2>"$TMP/err" && fail "detached with $(cache dirty_bytes) bytes not written back"
grep -q "is not detached: 1 MiB of its cache cannot be written back" "$TMP/err" ||
	fail "it said: $(cat "$TMP/err")"
kill -CONT "$DONOR_PID"
weft detach r || fail "detach"
cp "$TMP/last" "$TMP/want"
tail -c +$(((1 << 20) + 1)) "$TMP/seen" >>"$TMP/want"
weft attach "$URI" --socket "$TMP/s" >/dev/null || fail "direct"
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/got" || fail "nbdcopy from direct"
cmp "$TMP/want" "$TMP/got" || fail "the donor has something else"
weft detach r
# Where was read is recorded, and is an order to pull in.
(cd "$TMP" && weft attach "$URI" --socket s --cache 16M --chunk-size 256K --record-order order >/dev/null) || fail "attach"
qemu-io -f raw -r -c 'read 8M 4k' -c 'read 1M 4k' \
	-c 'read 8M 4k' "nbd+unix:///?socket=$TMP/s" >/dev/null
weft detach r
[[ $(grep -v '^#' "$TMP/order" | head -n 1) = "8388608 262144" ]] ||
	fail "recorded: $(head -n 5 "$TMP/order")"
weft attach "$URI" --socket "$TMP/s" --cache 16M --pull-order "$TMP/order" \
	--pull-rate 1k >"$TMP/said" || fail "attach"
grep -q pulling "$TMP/said" || fail "it said: $(cat "$TMP/said")"
weft detach r
cp "$TMP/order" "$TMP/order.was"
weft attach "$URI" --cache 16M --mount "$TMP/none/file" --record-order "$TMP/order" 2>/dev/null &&
	fail "it was attached"
cmp "$TMP/order" "$TMP/order.was" || fail "an attach that failed recorded something"
echo "8M" >"$TMP/order"
weft attach "$URI" --socket "$TMP/s" --cache 16M --pull-order "$TMP/order" 2>"$TMP/err" &&
	fail "it was taken"
grep -q "order, line 1: '8M' is no offset" "$TMP/err" || fail "it said: $(cat "$TMP/err")"
mkfifo "$TMP/fifo"
weft attach "$URI" --socket "$TMP/s" --cache 16M --pull-order "$TMP/fifo" 2>"$TMP/err" &&
	fail "a FIFO was taken"
grep -q 'fifo is no regular file' "$TMP/err" || fail "it said: $(cat "$TMP/err")"
for bad in "--cache 1M" "--cache 64M --shared" "--pull" "--cache 64M --chunk-size 96K" \
	"--cache 8M --chunk-size 1M" \
	"--cache 64M --device"; do
	# shellcheck disable=SC2086 # words
	weft attach "$URI" --socket "$TMP/s" $bad 2>"$TMP/err" && fail "$bad was taken"
	[[ $? == 2 ]] || fail "$bad: $(cat "$TMP/err")"
done
exit 0
