# SPDX-License-Identifier: MIT
# Each region's line can be pasted, whatever it listens on and however the region is called.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

start_donor --memory scratch=1M --memory 'my region/ä=1=4K'
grep -qE \
	"^region 'scratch': memory, 1 MiB, epoch [0-9a-f]{16} ; map it with:  weft attach weft://127.0.0.1:$PORT/scratch --mount scratch.img$" \
	"$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
grep -qF "weft://127.0.0.1:$PORT/my%20region/%C3%A4%3D1 --mount my_region____1.img" "$DONOR_LOG" ||
	fail "$(cat "$DONOR_LOG")"
[[ $(tail -n 1 "$DONOR_LOG") = ready ]] || fail "the last line is not 'ready'"
if [[ -w /dev/fuse ]]; then
	mkdir "$TMP/elsewhere"
	(cd "$TMP/elsewhere" && eval "$(sed -n "s/^region 'scratch'.*map it with:  //p" "$DONOR_LOG")") >/dev/null || fail "the line cannot be pasted"
	[[ $(stat -c %s "$TMP/elsewhere/scratch.img") = 1048576 ]] || fail "not mapped"
	weft detach scratch >/dev/null
fi
stop_donor

start_donor --memory scratch=1M --listen "unix:$TMP/sock"
grep -qF "weft attach 'weft+unix:///scratch?socket=$TMP/sock' --mount" "$DONOR_LOG" ||
	fail "$(cat "$DONOR_LOG")"
[[ -S $TMP/sock ]] || fail "no socket"
stop_donor || fail "exit status $?"
[[ ! -e $TMP/sock ]] || fail "the socket was left behind"

# A relative path is made absolute, and removed at the end too.
cd "$TMP"
start_donor --memory scratch=1M --listen unix:rel.sock
grep -qF "scratch?socket=$TMP/rel.sock" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
stop_donor || fail "exit status $?"
[[ ! -e $TMP/rel.sock ]] || fail "the relative socket was left behind"

# The socket file of a donor that was killed is replaced; that of a live one is not.
start_donor --memory scratch=1M --listen "unix:$TMP/sock"
! weft-serve --memory other=1M --listen "unix:$TMP/sock" 2>"$TMP/log" ||
	fail "took a live donor's socket"
grep -q 'Address already in use' "$TMP/log" || fail "$(cat "$TMP/log")"
stop_donor KILL || :
start_donor --memory scratch=1M --listen "unix:$TMP/sock"
stop_donor

# Several sockets, IPv6 among them.
if [[ -e /proc/net/if_inet6 ]] && grep -q ' lo$' /proc/net/if_inet6; then
	start_donor --memory scratch=1M --listen '[::1]:0' --listen 127.0.0.1:0
	grep -qE "weft attach 'weft://\[::1\]:[0-9]+/scratch'" "$DONOR_LOG" ||
		fail "$(cat "$DONOR_LOG")"
	[[ $(grep -c '^listening on' "$DONOR_LOG") = 2 ]] || fail "$(cat "$DONOR_LOG")"
	stop_donor
fi
