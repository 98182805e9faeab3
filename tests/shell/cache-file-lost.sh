# SPDX-License-Identifier: MIT
# A cache file whose pages are gone, made shorter under a running bridge: what is lost fails, is
# told once, and is never taken for zeros; the rest is saved, and reaches the donor.
# presets: dev asan
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy cmp qemu-io
[[ -w /dev/fuse ]] || skip "no /dev/fuse"

refused() { # TEXT ARGUMENT…: a command that says so
	"${@:2}" >"$TMP/out" 2>"$TMP/err" && fail "${*:2} was taken"
	grep -q -- "$1" "$TMP/err" || fail "${*:2} said: $(cat "$TMP/err")"
}
cache() { weft status r --json | jq ".attachments[0].cache.$1"; }
log=$WEFT_RUN_DIR/attach-r.log
socket="nbd+unix:///?socket=$TMP/s"
random_file "$TMP/data" $((8 << 20))
start_donor --memory r=64M
cached=(--socket "$TMP/s" --mount "$TMP/m" --cache 32M --cache-file "$TMP/cache"
	--push-interval 60 --chunk-size 256K)

weft attach "$URI" "${cached[@]}" >/dev/null || fail "attach"
pid=$(weft status r --json | jq '.attachments[0].pid')
# Nothing of it is in a core dump.
awk -v file="$TMP/cache" \
	'/^[0-9a-f]+-/ {ours = $NF == file} ours && /^VmFlags/ {n++; if (!/ dd/) bad++}
	END {exit !(n > 0 && !bad)}' \
	"/proc/$pid/smaps" || fail "the cache would be dumped"
nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
(($(cache dirty_bytes) == 8 << 20)) || fail "dirty: $(cache dirty_bytes)"
# The slots are taken in turn: the file keeps a bit more than the first 6 MiB.
truncate -s 6M "$TMP/cache"
for ((mib = 0; mib < 8; mib++)); do
	# Read the one way, and the other.
	if ! dd if="$TMP/m" bs=1M skip="$mib" count=1 status=none >"$TMP/got" 2>"$TMP/err"; then
		grep -q "Input/output error" "$TMP/err" || fail "$(cat "$TMP/err")"
		lost=$mib
	fi
	[[ ! -s $TMP/got ]] ||
		cmp -i "0:$((mib << 20))" -n "$(stat -c %s "$TMP/got")" "$TMP/got" "$TMP/data" ||
			fail "other bytes"
	if qemu-io -f raw -r -c "read ${mib}M 1M" "$socket" >"$TMP/out" 2>&1; then
		[[ $mib != "${lost-}" ]] || fail "what is lost was read: $(cat "$TMP/out")"
	fi
done
! nbdcopy "$socket" null: 2>/dev/null || fail "what is lost was copied"
kill -0 "$pid" || fail "the bridge died"
[[ ${lost-} = 7 ]] || fail "nothing of the lost failed"
(($(grep -c "cannot be read or written" "$log") == 1)) || fail "the log: $(cat "$log")"
lost=$(cache lost_bytes)
((lost > 0 && lost < 3 << 20)) || fail "lost: $lost"
weft status r | grep -q "that were not at the donor are LOST" || fail "status: $(weft status r)"
weft rescue r "$TMP/saved" >"$TMP/out" || fail "rescue"
grep -q "that were not at the donor are lost" "$TMP/out" || fail "rescue said: $(cat "$TMP/out")"
grep -q " torn\$" "$TMP/saved.map" || fail "map: $(cat "$TMP/saved.map")"
while read -r off len what; do
	[[ $what != dirty ]] || cmp -i "$off" -n "$len" "$TMP/saved" "$TMP/data" ||
		fail "saved something else at $off"
done < <(grep -v '^#' "$TMP/saved.map")
refused "Input/output error; to lose that: weft detach --force r\|are lost, since its cache file cannot be read" weft detach r
weft detach --force r >"$TMP/out" 2>&1 || grep -q "is detached, but" "$TMP/out" ||
	fail "detach: $(cat "$TMP/out")"
# What was not lost is at the donor, and nothing else is over what it had.
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/donor" || fail "nbdcopy"
while read -r off len what; do
	case $what in
	dirty)
		cmp -i "$off" -n "$len" "$TMP/donor" "$TMP/data" ||
			fail "the donor lacks $len bytes at $off"
		;;
	torn)
		cmp -i "$off:0" -n "$len" "$TMP/donor" /dev/zero ||
			fail "the donor has half of something at $off"
		;;
	esac
done < <(grep -v '^#' "$TMP/saved.map")
[[ $(stat -c %s "$TMP/cache") = $((6 << 20)) ]] || fail "the file's size changed"
refused "something else, or damaged" weft attach "$URI" "${cached[@]}"

# A link is not followed, and nothing is made where it leads; nor is a device opened.
ln -s "$TMP/target" "$TMP/link"
refused "$TMP/link as a cache file: it is a symbolic link" weft attach "$URI" --socket "$TMP/s" \
	--cache 32M --cache-file "$TMP/link"
[[ ! -e $TMP/target ]] || fail "the link was followed"
refused "/dev/null as a cache file: it is no regular file" weft attach "$URI" --socket "$TMP/s" \
	--cache 32M --cache-file /dev/null
mkfifo "$TMP/fifo"
refused "it is no regular file" weft attach "$URI" --socket "$TMP/s" --cache 32M \
	--cache-file "$TMP/fifo"
refused "it is no regular file" weft rescue "$TMP/fifo" "$TMP/nothing"
# Without a file, the same of core dumps: the cache, and the buffers, which are the largest after
# it.  (A sanitizer has large memory of its own, which would be dumped.)
case $WEFT_PRESET in asan | tsan) exit 0 ;; esac
weft attach "$URI" --socket "$TMP/s" --cache 48M >/dev/null || fail "attach"
pid=$(weft status r --json | jq '.attachments[0].pid')
awk '/^Size:/ {big = $2 > 8192} /^VmFlags: rd wr/ && big {n++; if (!/ dd/) bad++}
	END {exit !(n > 0 && !bad)}' "/proc/$pid/smaps" ||
	fail "the cache would be dumped"
weft detach r
exit 0
