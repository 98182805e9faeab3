# SPDX-License-Identifier: MIT
# --verify and --encrypt: what a donor has of it, what it can change unnoticed (nothing), and that a
# bridge killed with -9 loses nothing, as long as its guard lives.
# presets: dev asan
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy nbdinfo cmp qemu-io

# A file for each: a donor waits for whoever was lost by it.
truncate -s 32M "$TMP/verify" "$TMP/encrypt"
start_donor --file "verify=$TMP/verify" --file "encrypt=$TMP/encrypt" --memory m=8M
M=${URI%/*}/m
socket="nbd+unix:///?socket=$TMP/s"
refused() { # TEXT ARGUMENT…: a command that says so
	"${@:2}" >"$TMP/out" 2>"$TMP/err" && fail "${*:2} was taken"
	grep -q -- "$1" "$TMP/err" || fail "${*:2} said: $(cat "$TMP/err")"
}
state() { jq ".$1" "$WEFT_RUN_DIR/attach-r.json"; }
kill_and_wait() { # PID…
	kill -KILL "$@"
	# shellcheck disable=SC2317 # wait_for calls it
	gone() { ! kill -0 "$@" 2>/dev/null; }
	local pid
	for pid in "$@"; do
		wait_for gone "$pid"
	done
}
attach() { weft attach "${URI%/*}/${file##*/}" --name r --socket "$TMP/s" "$@"; }
reads() { # BLOCK: whether it can be read
	qemu-io -r -f raw -c "read $(($1 * 4096)) 4096" "$socket" >"$TMP/io" 2>&1
}

for option in --verify --encrypt; do
	file=$TMP/${option#--}
	refused "begins with empty contents" attach "$option"
	refused "neither --read-only nor --shared" attach "$option" --read-only
	refused "neither --read-only nor --shared" attach "$option" --shared
	printf 'somebody' | dd of="$file" bs=1 seek=20000000 conv=notrunc status=none

	attach "$option" --new-contents >"$TMP/said" || fail "attach"
	grep -q "  sealed: the donor's bytes are .*verified (" "$TMP/said" ||
		fail "$(cat "$TMP/said")"
	grep -q "  the contents end with this attachment" "$TMP/said" || fail "$(cat "$TMP/said")"
	reads $((20000000 / 4096)) || fail "$(cat "$TMP/io")"
	[[ $(nbdinfo --size "$socket") = $((32 << 20)) ]] || fail "size"
	random_file "$TMP/data" 24M
	nbdcopy --flush "$TMP/data" "$socket" || fail "nbdcopy"
	cmp -s -n $((24 << 20)) "$TMP/data" "$file" && plain=true || plain=false
	[[ $plain = $([[ $option = --verify ]] && echo true || echo false) ]] ||
		fail "$option: the donor's bytes are plain: $plain"

	# Killed with more in the cache.
	random_file "$TMP/more" 8M
	cat "$TMP/data" "$TMP/more" >"$TMP/all"
	truncate -s 24M "$TMP/hole"
	for round in 1 2 3; do
		qemu-io -f raw -c "write -s $TMP/more 24M 8M" "$socket" >/dev/null || fail "write"
		kill_and_wait "$(state pid)"
		attach "$option" >"$TMP/said" || fail "not taken over in round $round"
		grep -q "taken over" "$TMP/said" || fail "$(cat "$TMP/said")"
		nbdcopy "$socket" "$TMP/back" || fail "nbdcopy in round $round"
		cmp "$TMP/all" "$TMP/back" || fail "round $round"
	done
	[[ $(weft status r --json | jq .attachments[0].cache.bad_blocks) = 0 ]] || fail "bad"
	kill_and_wait "$(state pid)"
	other=$([[ $option = --verify ]] && echo --encrypt || echo --verify)
	refused "was attached with $option, and is taken over in the same way only" attach "$other"
	refused "was attached with $option, and is taken over in the same way only" attach
	refused "has sealed contents at" weft attach "$M" --name r --socket "$TMP/s"
	refused "was attached without --cache-file, and is taken over in the same way only" \
		attach "$option" --cache-file "$TMP/cache"

	# What the donor changes, swaps or puts back; and nothing else.
	cp "$file" "$TMP/before"
	attach "$option" >/dev/null || fail "attach"
	qemu-io -f raw -c "write -s $TMP/more 0 64k" -c flush "$socket" >/dev/null || fail "write"
	kill_and_wait "$(state pid)"
	put() { dd of="$file" bs=4096 conv=notrunc status=none seek="$1" count=1 "${@:2}"; }
	put 3 if="$TMP/before" skip=3
	cp "$file" "$TMP/now"
	put 5 if="$TMP/now" skip=6
	put 6 if="$TMP/now" skip=5
	put 8 if=/dev/zero
	attach "$option" >/dev/null || fail "attach"
	for block in {0..9}; do
		reads "$block" && good=true || good=false
		[[ $good = $([[ $block = [3568] ]] && echo false || echo true) ]] ||
			fail "$option: block $block can be read: $good"
	done
	[[ $(weft status r --json | jq .attachments[0].cache.bad_blocks) = 4 ]] || fail "bad"
	weft status r | grep -q "verified (.*): 4 blocks were not what was written" ||
		fail "$(weft status r)"
	grep -q "block 5 (bytes from 20480 on) is not what was" "$WEFT_RUN_DIR/attach-r.log" ||
		fail "$(cat "$WEFT_RUN_DIR"/attach-r.log)"
	[[ $(grep -c "is not what was written" "$WEFT_RUN_DIR"/attach-r.log) = 4 ]] ||
		fail "$(cat "$WEFT_RUN_DIR"/attach-r.log)"
	qemu-io -f raw -c "write -P 7 20k 4k" -c "read -P 7 20k 4k" "$socket" >"$TMP/io" ||
		fail "$(cat "$TMP/io")"

	# Without its guard the key is gone: an error, and no zeros.
	guard=$(state guard)
	kill_and_wait "$(state pid)" "$guard"
	attach "$option" >"$TMP/out" 2>"$TMP/err" && fail "attached without a key"
	grep -q "is stale: .*the key of its contents is gone" "$TMP/err" || fail "$(cat "$TMP/err")"
	reads 0 && fail "what was read?"
	refused "was sealed (.*), and was stale when it was taken over" weft reset r
	weft detach --force r 2>"$TMP/err" && fail "nothing was lost?"
	grep -q "the attachment was lost" "$TMP/err" || fail "detach said: $(cat "$TMP/err")"
	rm "$WEFT_RUN_DIR/attach-r.log"
done

# With a cache file: what seals the contents is with the guard, what is dirty in the file.
file=$TMP/m
filed=(--cache 8M --cache-file "$TMP/cache")
attach --encrypt --new-contents "${filed[@]}" --push-interval 60 >"$TMP/said" || fail "attach"
grep -q "; the cache file's bytes are plain" "$TMP/said" || fail "$(cat "$TMP/said")"
random_file "$TMP/data" 2M
nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
kill_and_wait "$(state pid)"
attach --encrypt "${filed[@]}" --push-interval 60 >"$TMP/said" || fail "not taken over"
grep -q "with what a bridge that died had not written back" "$TMP/said" ||
	fail "$(cat "$TMP/said")"
nbdcopy "$socket" "$TMP/back" || fail "nbdcopy"
cmp -n $((2 << 20)) "$TMP/data" "$TMP/back" || fail "something else"
[[ $(weft status r --json | jq .attachments[0].cache.bad_blocks) = 0 ]] || fail "bad"
# Nothing is dirty in the file, and the guard has no cache.
nbdcopy --flush "$TMP/data" "$socket" || fail "nbdcopy"
kill_and_wait "$(state pid)"
refused "was attached with --cache-file $TMP/cache, and is taken over in the same way only" \
	attach --encrypt
attach --encrypt "${filed[@]}" --push-interval 60 >"$TMP/said" || fail "$(cat "$TMP/said")"
nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
kill_and_wait "$(state pid)" "$(state guard)"
attach --encrypt "${filed[@]}" >"$TMP/out" 2>"$TMP/err" && fail "attached without a key"
grep -q "still in $TMP/cache; save it: weft rescue" "$TMP/err" || fail "$(cat "$TMP/err")"
weft detach --force r 2>/dev/null && fail "nothing was lost?"
# What it holds is plain bytes: for nobody who would send them so.
for option in "" "--verify --new-contents" "--encrypt --new-contents"; do
	# shellcheck disable=SC2086 # a list
	refused "sealed in another way, or whose key is gone" weft attach "$M" --name other \
		--socket "$TMP/s2" "${filed[@]}" $option
done
weft rescue "$TMP/cache" "$TMP/saved" >/dev/null || fail "rescue"
cmp -n $((2 << 20)) "$TMP/data" "$TMP/saved" || fail "what was saved is something else"
rm "$WEFT_RUN_DIR/attach-r.log"
weft detach r 2>/dev/null && fail "something is left"
[[ ! -e $WEFT_RUN_DIR/attach-r.json ]] || fail "left behind"
