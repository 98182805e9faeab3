# SPDX-License-Identifier: MIT
# Over loopback another user of the machine is refused, and told why and what to do, by whatever
# client; the donor's own user and root are not.  --allow-insecure lets in whoever comes.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool setpriv nbdinfo qemu-img
[[ $EUID = 0 ]] || skip "needs root, to be another user"

other=54321
as_user() { # UID COMMAND...
	HOME=$place WEFT_RUN_DIR=$place/run-$1 \
		setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"
}
# For those who cannot look into our folders.
place=$(mktemp -d /tmp/weft-place.XXXXXX)
cleanup_add "rm -rf $place"
chmod 755 "$place"
cp "$WEFT_BIN"/weft-{serve,attach,list} "$place"
for uid in $other 54322; do
	install -d -o "$uid" -m 700 "$place/run-$uid"
done

start_donor --memory r=1M
donor=127.0.0.1:$PORT
nbdinfo "nbd://$donor/r" >/dev/null || fail "root was refused"
why="is a process of uid $other, and this donor lends to processes of uid 0 and of root alone"
refused() { # COMMAND...
	! as_user $other "$@" >"$TMP/log" 2>&1 || fail "another user was let in: $*"
	grep -qF "$why" "$TMP/log" || fail "$* says: $(cat "$TMP/log")"
	grep -qF "weft serve --listen unix:PATH" "$TMP/log" || fail "no advice: $(cat "$TMP/log")"
}
! as_user $other nbdinfo "nbd://$donor/r" >"$TMP/log" 2>&1 || fail "let in: $(cat "$TMP/log")"
refused qemu-img info "nbd://$donor/r"
refused "$place/weft-attach" "weft://$donor/r" --socket "$place/run-$other/s"
refused "$place/weft-list" "weft://$donor"
stop_donor || fail "exit status $?"

# A donor of that user's.
HOME=$place WEFT_RUN_DIR=$place/run-$other setpriv --reuid $other --regid $other --clear-groups \
	"$place/weft-serve" --listen 127.0.0.1:0 --memory r=1M >"$TMP/theirs" 2>&1 &
pid=$!
wait_for -t 60 grep -qx ready "$TMP/theirs"
donor=$(sed -n 's|^listening on ||p' "$TMP/theirs")
nbdinfo "nbd://$donor/r" >/dev/null || fail "root was refused: $(cat "$TMP/theirs")"
as_user $other nbdinfo "nbd://$donor/r" >/dev/null || fail "its own user was refused"
! as_user 54322 nbdinfo "nbd://$donor/r" >"$TMP/log" 2>&1 || fail "a third user was let in"
kill $pid
wait $pid || fail "exit status $?"

start_donor --memory r=1M --allow-insecure
as_user $other nbdinfo "nbd://127.0.0.1:$PORT/r" >/dev/null || fail "another user was refused"
