# SPDX-License-Identifier: MIT
# A bridge goes on at another donor when its region moves there, and so does one that takes over:
# it knows the place to which the region was about to move, and the one where the region is.  The
# donors are those of weft-protocol(7) alone.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3 qemu-io jq

truncate -s 16M "$TMP/memory"
# donor NAME: begins one, whose port is in PORT_NAME, and whose place in PLACE_NAME.
donor() {
	: >"$TMP/$1.says"
	rm -f "$TMP/$1"
	python3 "$WEFT_SRC/tests/support/second-donor.py" $((16 << 20)) 3000 00112233445566aa \
		"$TMP/memory" "$TMP/$1.says" >"$TMP/$1" 2>>"$TMP/errors" &
	printf -v "pid_$1" %s $!
	wait_for -t 100 test -s "$TMP/$1"
	printf -v "place_$1" weft://127.0.0.1:%s/m "$(head -n 1 "$TMP/$1")"
}
# say NAME WHAT…: what it says from now on, once its sessions have ended.
say() {
	local pid=pid_$1
	echo "${@:2}" >"$TMP/$1.new"
	mv "$TMP/$1.new" "$TMP/$1.says"
	kill -USR1 "${!pid}"
}
nbd="nbd+unix:///?socket=$TMP/s"
io() { qemu-io -f raw "$nbd" "$@" >"$TMP/io" 2>&1 && ! grep -q 'verification failed' "$TMP/io"; }
attachment() { weft status m --json | jq -r ".attachments[0].$1"; }
of_donor() { attachment "donors[0].$1"; }
is_at() { [[ $(of_donor uri) = "$1" && $(attachment state) = ready ]]; }
is_moving_to() { [[ $(of_donor moving_to) = "$1" ]]; }
granted() { grep -c "^granted .* $2 w" "$TMP/$1" || true; }
killed() {
	local pid
	pid=$(attachment pid)
	kill -KILL "$pid"
	wait_for gone "$pid"
}
donor a
donor b
place_a=${place_a:?} place_b=${place_b:?} pid_a=${pid_a:?}

weft attach "$place_a" --socket "$TMP/s" --lanes 2
io -c 'write -P 0x11 0 16M' || fail "$(cat "$TMP/io")"

echo "== it learns of the move, and another bridge of its name too"
say b frozen "$place_b"
say a moving "$place_b"
wait_for is_moving_to "$place_b"
weft status m | grep -F "about to move to $place_b" || fail "$(weft status m)"
killed
weft attach "$place_a" --socket "$TMP/s" --lanes 2
is_at "$place_a" || fail "$(weft status m)"
is_moving_to "$place_b" || fail "$(weft status m)"
[[ $(granted a '2\.[0-9]*') -gt 0 ]] || fail "$(cat "$TMP/a")"
io -c 'write -P 0x22 0 1M' || fail "$(cat "$TMP/io")"

echo "== it moves, and nobody sees an error"
say a frozen "$place_b"
qemu-io -f raw "$nbd" -c 'write -P 0x33 1M 1M' >"$TMP/waits" 2>&1 &
waits=$!
say b
say a moved "$place_b"
wait "$waits" || fail "$(cat "$TMP/waits")"
wait_for is_at "$place_b"
[[ $(of_donor moved_from) = "$place_a" ]] || fail "$(weft status m)"
is_moving_to null || fail "$(weft status m)"
weft status m | grep -F "now at $place_b, moved from $place_a" || fail "$(weft status m)"
io -c 'read -P 0x22 0 1M' -c 'read -P 0x33 1M 1M' -c 'read -P 0x11 2M 14M' ||
	fail "$(cat "$TMP/io")"

echo "== the donor before is gone, and bridges take over"
kill "$pid_a"
wait_for gone "$pid_a"
killed
weft attach "$place_a" --socket "$TMP/s"
is_at "$place_b" || fail "$(weft status m)"
killed
weft attach "$place_b" --name m --socket "$TMP/s"
is_at "$place_b" || fail "$(weft status m)"
[[ $(of_donor moved_from) = null ]] || fail "$(weft status m)"
[[ $(granted b '4\.0') -gt 0 ]] || fail "$(cat "$TMP/b")"
io -c 'read -P 0x33 1M 1M' || fail "$(cat "$TMP/io")"

echo "== one that was killed says goodbye where the region is"
donor a
say b moved "$place_a"
wait_for is_at "$place_a"
killed
weft detach m
wait_for grep -qx 'ended clean' "$TMP/a"

echo "== a region that has moved is found"
weft attach "$place_b" --name m --socket "$TMP/s" >"$TMP/attached"
grep -F "$place_b has moved, and is at $place_a now" "$TMP/attached" || fail "$(<"$TMP/attached")"
is_at "$place_a" || fail "$(weft status m)"
io -c 'read -P 0x33 1M 1M' || fail "$(cat "$TMP/io")"
weft detach m
[[ ! -s $TMP/errors ]] || fail "$(cat "$TMP/errors")"
