# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# presets: dev asan
# processors: 2
# A cache file of which the disk cannot read some blocks (null_blk with bad blocks, below ext4),
# after its bridge was killed: rescue saves the rest, and names what is torn; the next bridge takes
# the device over, fails what is lost with EIO, and writes the rest back.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool mkfs.ext4 filefrag jq nbdcopy cmp

in_testbed --timeout 350 <<'END'
refused() { # TEXT ARGUMENT…: a command that says so
	"${@:2}" >"$TMP/out" 2>"$TMP/err" && fail "${*:2} was taken"
	grep -q -- "$1" "$TMP/err" || fail "${*:2} said: $(cat "$TMP/err")"
}
cache() { weft status r --json | jq ".attachments[0].cache.$1"; }
modprobe null_blk nr_devices=0
disk=/sys/kernel/config/nullb/weft
mkdir "$disk"
echo 128 >"$disk/size"
echo 1 >"$disk/memory_backed"
echo 1 >"$disk/power"
node=/dev/weft # named after the folder
mkfs.ext4 -q "$node"
mkdir "$TMP/disk"
mount -t ext4 "$node" "$TMP/disk"
file=$TMP/disk/cache

start_donor --listen 127.0.0.1:0 --memory r=64M
cached=(--device --device-kind ublk --cache 32M --chunk-size 256K --cache-file "$file"
	--push-interval 600 --lanes 2)
weft attach "$URI" "${cached[@]}" || fail "attach"
random_file "$TMP/data" $((8 << 20))
dd if="$TMP/data" of=/dev/ublkb0 bs=1M oflag=direct status=none
pid=$(pgrep -x weft-attach)
kill -KILL "$pid"
wait_for -t 60 gone "$pid"
sync
# The 16 KiB at 5 MiB of its slots, as the disk has them.
at=$((8192 + 65536 + (5 << 20)))
read -r first physical < <(filefrag -b4096 -e "$file" | awk -v want=$((at / 4096)) \
	'/^ *[0-9]+:/ {gsub(/[.:]/, " "); if ($2 <= want && want <= $3) print $2, $4}')
block=$((physical + at / 4096 - first))
echo "+$((block * 8))-$((block * 8 + 31))" >"$disk/badblocks"
echo 3 >/proc/sys/vm/drop_caches
dd if="$file" bs=4096 skip=$((at / 4096)) count=1 of=/dev/null status=none 2>/dev/null &&
	fail "it can be read: this shows nothing"

echo "== rescue"
weft rescue "$file" "$TMP/saved" | tee "$TMP/out"
grep -q "KiB more that were not at the donor are lost" "$TMP/out" || fail "rescue"
cat "$TMP/saved.map"
# One run; the disk may fail a bit more than it was told to, since it reads ahead.
read -r torn bad < <(awk '$3 == "torn" {print $1, $2; n++} END {exit n != 1}' "$TMP/saved.map") ||
	fail "map"
((bad >= 16384 && bad <= 65536)) || fail "$bad bytes are torn"
sum=0
while read -r off len what; do
	[[ $what = torn ]] || cmp -i "$off" -n "$len" "$TMP/saved" "$TMP/data" ||
		fail "saved something else at $off"
	sum=$((sum + len))
done < <(grep -v '^#' "$TMP/saved.map")
((sum == 8 << 20)) || fail "the map names $sum bytes"

echo "== the next bridge"
weft attach "$URI" "${cached[@]}" 2>&1 | tee "$TMP/said" || fail "attach anew"
pid=$(pgrep -x weft-attach)
lost() { (($(cache lost_bytes) == bad && $(cache dirty_bytes) == bad)); }
wait_for -t 60 lost
weft status r
dd if=/dev/ublkb0 bs=4096 skip=$((torn / 4096)) count=1 iflag=direct of=/dev/null status=none \
	2>"$TMP/err" && fail "what is lost was read"
grep -q "Input/output error" "$TMP/err" || fail "$(cat "$TMP/err")"
dd if=/dev/ublkb0 bs=1M count=4 iflag=direct status=none | cmp -n $((4 << 20)) - "$TMP/data" ||
	fail "other bytes"
(($(cat "$TMP/said" "$WEFT_RUN_DIR/attach-r.log" | grep -c "cannot be read or written") == 1)) ||
	fail "it is told, but not once: $(cat "$TMP/said" "$WEFT_RUN_DIR/attach-r.log")"
refused "lost\\|could not be written" weft detach r
weft detach --force r || :
gone "$pid" || fail "the bridge goes on"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/donor" || fail "nbdcopy"
cmp -n "$torn" "$TMP/donor" "$TMP/data" || fail "the donor lacks something"
cmp -i $((torn + bad)) -n $(((8 << 20) - torn - bad)) "$TMP/donor" "$TMP/data" ||
	fail "the donor lacks something"
cmp -i "$torn:0" -n "$bad" "$TMP/donor" /dev/zero || fail "the donor has something for what is lost"
! compgen -G "$TMP/asan*" || fail "the sanitizers have complaints: $(cat "$TMP"/asan*)"
END
