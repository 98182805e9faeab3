# SPDX-License-Identifier: MIT
# A donor that another user than root runs notes what it gave away where a reboot leaves it: it does
# not lend that again when the run directory is empty.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool setpriv
[[ $EUID = 0 ]] || skip "needs root, to be another user"

# For those who cannot look into our folders.
place=$(mktemp -d /tmp/weft-place.XXXXXX)
cleanup_add "rm -rf $place"
chmod 755 "$place"
cp "$WEFT_BIN"/{weft-serve,weftholder} "$place"
install -d -o 54321 -m 700 "$place/home"
giver_port=$(free_port)
# giver [VARIABLE=VALUE…]
giver() {
	rm -rf "$place/tmpfs" "$TMP/giver"
	install -d -o 54321 -m 700 "$place/tmpfs"
	env -u WEFT_RUN_DIR -u STATE_DIRECTORY -u XDG_STATE_HOME "HOME=$place/home" \
		"XDG_RUNTIME_DIR=$place/tmpfs" "$@" setpriv --reuid 54321 --regid 54321 \
		--clear-groups "$place/weft-serve" --listen "127.0.0.1:$giver_port" --memory r=1M \
		--keep 0 >"$TMP/giver" 2>&1 &
	giver=$!
	# It has no WEFT_RUN_DIR, by which the test's end would find it.
	cleanup_add "kill -KILL $giver 2>/dev/null || :"
}
reboot() {
	kill -KILL "$giver"
	wait "$giver" || :
	giver "$@"
	wait_for -t 60 grep -qx ready "$TMP/giver"
}
not_lent() {
	grep -q "region 'r' has moved to weft://127.0.0.1:$PORT/r, and is not lent" "$TMP/giver" ||
		fail "$(cat "$TMP/giver"; weft list "$from")"
	! weft list "$from" | grep '^r ' || fail "it is lent"
}
giver
wait_for -t 60 grep -qx ready "$TMP/giver"
from=weft://127.0.0.1:$giver_port
start_donor --take 1M --memory x=1M
weft move "$from/r" "weft://127.0.0.1:$PORT" >"$TMP/move" 2>&1 || fail "$(<"$TMP/move")"
reboot
not_lent
compgen -G "$place/home/.local/state/weft/*/moves-*" >/dev/null ||
	fail "$(find "$place")"

echo "where systemd says"
install -d -o 54321 -m 700 "$place/state"
mv "$place"/home/.local/state/weft/*/moves-* "$place/state"
reboot "STATE_DIRECTORY=$place/state"
not_lent

echo "where nothing can be noted, nothing is lent"
kill -KILL "$giver"
wait "$giver" || :
giver "HOME=$place"
wait_for -t 60 gone "$giver"
grep -q "what moves cannot be noted in $place/.local/state/weft/.*: Permission" "$TMP/giver" ||
	fail "$(<"$TMP/giver")"
