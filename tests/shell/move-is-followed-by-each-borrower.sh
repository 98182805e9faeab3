# SPDX-License-Identifier: MIT
# Each kind of borrower goes on where its region moves, while it writes: bridges without and with a
# cache, one that came over a Unix socket, a striped one of which one part moves alone, readers, and
# programs with libweft or with the region as memory.
# presets: dev asan tsan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/libweft.sh"
need_tool python3 jq qemu-io

start_donor --take 128M --listen 127.0.0.1:0
taker=weft://$(sed -n 's/^listening on //p' "$DONOR_LOG")
start_donor --memory direct=8M --memory unix=8M --memory cached=8M --memory part=4M \
	--memory other=4M --memory read=4M --memory library=8M --memory paged=8M \
	--memory resident=8M --listen 127.0.0.1:0 --listen "unix:$TMP/donor"
giver=weft://$(sed -n 's/^listening on \(127.*\)/\1/p' "$DONOR_LOG")

# moves REGION
moves() {
	weft move "$giver/$1" "$taker" >"$TMP/move" 2>&1 ||
		fail "$1: $(cat "$TMP/move" "$DONOR_LOG")"
}
attachment() { weft status "$1" --json | jq -r ".attachments[0].$2"; }
# is_at NAME NUMBER URI: where that donor of the attachment is.
is_at() { [[ $(attachment "$1" "donors[$2].uri") = "$3" && $(attachment "$1" state) = ready ]]; }
# writes NAME; then what was written is read once more, and nothing failed.
writes() {
	python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/$1.sock" "$TMP/$1.stop" 1 400 \
		>"$TMP/$1.writer" 2>&1 &
	declare -g "writer_$1=$!"
	wait_for -t 60 test -e "$TMP/$1.stop.began"
}
wrote() {
	local writer=writer_$1
	touch "$TMP/$1.stop"
	wait "${!writer}" || fail "$1: $(cat "$TMP/$1.writer")"
	[[ $(attachment "$1" errors) = 0 ]] || fail "$(weft status "$1")"
	echo "$1: $(cat "$TMP/$1.writer")"
}

echo "== bridges"
weft attach "$giver/direct" --name direct --socket "$TMP/direct.sock" --lanes 2
weft attach "weft+unix:///unix?socket=$TMP/donor" --name unix --socket "$TMP/unix.sock"
weft attach "$giver/cached" --name cached --socket "$TMP/cached.sock" --cache 4M
for name in direct unix cached; do
	writes "$name"
	moves "$name"
	wait_for is_at "$name" 0 "$taker/$name"
	wrote "$name"
done
[[ $(attachment unix transport) = tcp ]] || fail "$(weft status unix)"
[[ $(attachment unix 'donors[0].moved_from') = weft+unix:* ]] || fail "$(weft status unix)"

echo "== a part of a striped device"
weft attach "$giver/other" "$giver/part" --name striped --socket "$TMP/striped.sock"
writes striped
moves part
wait_for is_at striped 1 "$taker/part"
is_at striped 0 "$giver/other" || fail "$(weft status striped)"
wrote striped

echo "== readers"
weft attach "$giver/read" --name read --read-only --socket "$TMP/read.sock"
weft attach "$giver/read" --name shared --shared --socket "$TMP/shared.sock"
moves read
for name in read shared; do
	wait_for is_at "$name" 0 "$taker/read"
	nbd="nbd+unix:///?socket=$TMP/$name.sock"
	qemu-io -r -f raw "$nbd" -c 'read -P 0 0 4M' >"$TMP/io" 2>&1 || fail "$(cat "$TMP/io")"
done

echo "== programs"
opens "$giver/library"
says ok write 1 0 1000000
begin awrite 2 1000000 4000000
moves library
ends ok
says ok read 1 0 1000000
says ok read 2 1000000 4000000
says ok write 3 0 1000000
says ok read 3 0 1000000
closes
for mode in paged resident; do
	opens -m "$mode" "$giver/$mode"
	says ok mwrite 1 0 6000000
	moves "$mode"
	says ok mwrite 2 1000000 1000000
	says ok msync
	says ok mread 1 0 1000000
	says ok mread 2 1000000 1000000
	says ok mread 1 2000000 4000000
	closes
	# It is there, and nowhere else.
	opens "$taker/$mode"
	says ok read 1 0 1000000
	says ok read 2 1000000 1000000
	says ok read 1 2000000 4000000
	closes
done
for name in direct unix cached striped read shared; do
	weft detach "$name"
done

echo "== with a key"
weft key new box --store "$TMP/keys" --out "$TMP/box" --region keyed >"$TMP/key"
weft key new mover --store "$TMP/keys" --out "$TMP/mover" --admin >"$TMP/key"
WEFT_KEY=$TMP/mover start_donor --take 16M --keys "$TMP/keys"
taker=weft://$(sed -n 's/^listening on //p' "$DONOR_LOG")
start_donor --memory keyed=8M --keys "$TMP/keys"
# shellcheck disable=SC2153 # start_donor sets it
giver=weft://127.0.0.1:$PORT
weft attach "$giver/keyed" --key "$TMP/box" --socket "$TMP/keyed.sock"
writes keyed
WEFT_KEY=$TMP/mover moves keyed
wait_for is_at keyed 0 "$taker/keyed"
wrote keyed
[[ $(attachment keyed transport) = tcp+* ]] || fail "$(weft status keyed)"
weft detach keyed
