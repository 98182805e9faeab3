# SPDX-License-Identifier: MIT
# The recipes of weft-swap(1): memory, a file and a directory of one donor, and what is in them seen
# with xxd and Python through a file, beside a writer too.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool xxd python3 nbdcopy
[[ -w /dev/fuse ]] || skip "no FUSE here"

mkdir "$TMP/lend"
random_file "$TMP/lend/big.dat" $((1 << 20))
random_file "$TMP/disk.img" $((1 << 20))
printf '\x53\xef' | dd of="$TMP/disk.img" bs=1 seek=1080 conv=notrunc status=none
start_donor --memory ram=4M --file "image=$TMP/disk.img" --directory "$TMP/lend"
base=weft://127.0.0.1:$PORT

weft attach "$base/big.dat" --mount "$TMP/big.dat" --read-only >/dev/null
cmp "$TMP/big.dat" "$TMP/lend/big.dat" || fail "other bytes of a directory's file"
weft detach big.dat >/dev/null

weft attach "$base/image" --name writer --socket "$TMP/s" >/dev/null
weft attach "$base/image" --shared --mount "$TMP/image" >/dev/null
cmp <(xxd -s 1024 -l 64 "$TMP/image") <(xxd -s 1024 -l 64 "$TMP/disk.img") || fail "xxd"
# As the manual has it.
line=$(sed -n "s/^\$ \(python3 -c .*\)/\1/p" "$WEFT_SRC/fabric/man/weft-swap.1" |
	sed "s/\\\\(aq/'/g; s/\\\\e/\\\\/g")
[[ $line ]] || fail "weft-swap(1) has no python3"
said=$(cd "$TMP" && eval "$line") || fail "$line"
[[ $said = 53ef ]] || fail "$said"
weft detach image >/dev/null
weft detach writer >/dev/null

# What a program has put into remote memory.
weft attach "$base/ram" --socket "$TMP/s" >/dev/null
printf 'needle' | dd of="$TMP/words" bs=1M seek=2 conv=sync status=none
nbdcopy "$TMP/words" "nbd+unix:///?socket=$TMP/s"
weft attach "$base/ram" --name look --shared --mount "$TMP/ram" >/dev/null
[[ $(xxd -p -s $((2 << 20)) -l 6 "$TMP/ram" | xxd -r -p) = needle ]] || fail "not in the memory"
weft detach look >/dev/null
weft detach ram >/dev/null
stop_donor
