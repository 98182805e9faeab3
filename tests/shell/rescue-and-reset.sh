# SPDX-License-Identifier: MIT
# The donor loses the contents: every request fails; what the cache has that was not at the donor is
# saved; a reset goes on with what there is now, on the same socket.
# presets: dev asan tsan
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy cmp qemu-io socat

refused() { # TEXT ARGUMENT…: a command that says so
	"${@:2}" >"$TMP/out" 2>"$TMP/err" && fail "${*:2} was taken"
	grep -q -- "$1" "$TMP/err" || fail "${*:2} said: $(cat "$TMP/err")"
}
# shellcheck disable=SC2317 # wait_for calls it
is_stale() { [[ $(weft status r --json | jq -r '.attachments[0].state') = stale ]]; }
read_fails() { ! qemu-io -f raw -r -c 'read 0 4k' "$socket" >"$TMP/out" 2>&1; }
lose() { # the donor ends, and another lends a region of that name
	local port=${URI##*:}
	port=${port%/*}
	stop_donor || fail "the donor's exit status: $?"
	start_donor --listen "127.0.0.1:$port" --memory "${1-r=32M}"
	wait_for -t 30 is_stale
}
socket="nbd+unix:///?socket=$TMP/s"
random_file "$TMP/data" $((4 << 20))
random_file "$TMP/data2" $((4 << 20))

for how in "" "--cache-file $TMP/cache"; do
	start_donor --memory r=32M
	# shellcheck disable=SC2086 # words
	weft attach "$URI" --socket "$TMP/s" --cache 16M $how --push-interval 60 >/dev/null ||
		fail "attach"
	refused "a reset is for attachments that are stale" weft reset r
	nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
	lose
	read_fails || fail "something was read"
	refused "4 MiB that were not at the donor; save them first" weft reset r
	refused "cannot be written back; it is stale, so its donor takes none of it; save that with: weft rescue r" weft detach r
	# Whoever asked for it does not wait for its end.
	rm -f "$TMP"/gone* "$TMP"/saved*
	printf '{"op": "rescue", "file": "%s"}\n' "$TMP/gone" |
		socat -t 0 - "UNIX-CONNECT:$WEFT_RUN_DIR/attach-r.sock"
	wait_for test -e "$TMP/gone.map"
	weft rescue r "$TMP/saved" >"$TMP/out" || fail "rescue"
	grep -q "4 MiB that were not at the donor" "$TMP/out" || fail "it said: $(cat "$TMP/out")"
	cmp -n $((4 << 20)) "$TMP/saved" "$TMP/data" || fail "what was saved is something else"
	weft reset r || fail "reset"
	nbdcopy "$socket" "$TMP/got" && cmp -n $((32 << 20)) "$TMP/got" /dev/zero ||
		fail "it does not have the new contents"
	nbdcopy --flush "$TMP/data2" "$socket" || fail "nbdcopy after the reset"
	(($(weft status r --json | jq '.attachments[0].cache.dirty_bytes') == 0)) ||
		fail "a FLUSH left something"
	nbdcopy "$socket" "$TMP/got" && cmp -n $((4 << 20)) "$TMP/got" "$TMP/data2" ||
		fail "other bytes"
	# A second time, with nothing to lose; then a region of another size.
	lose
	weft reset r || fail "a second reset"
	nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
	lose r=16M
	refused "stale still.*had 33554432 bytes and has 16777216" weft reset --discard r
	read_fails || fail "something was read of another region"
	weft detach --force r >"$TMP/out" 2>&1 || grep -q "is detached, but" "$TMP/out" ||
		fail "$(cat "$TMP/out")"
	rm -f "$TMP/cache"
	stop_donor || fail "the donor's exit status: $?"
done

# Without a cache, several lanes.
start_donor --memory r=32M
weft attach "$URI" --socket "$TMP/s" --lanes 4 >/dev/null || fail "attach"
nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
lose
weft reset r || fail "reset without a cache"
nbdcopy --connections=4 "$TMP/data2" "$socket" || fail "nbdcopy"
nbdcopy "$socket" "$TMP/got" && cmp -n $((4 << 20)) "$TMP/got" "$TMP/data2" || fail "other bytes"
refused "has no cache" weft rescue r "$TMP/none"
weft detach r
exit 0
