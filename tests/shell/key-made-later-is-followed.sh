# SPDX-License-Identifier: MIT
# A donor that was started when its user had no key follows the first one that is made: before, who
# has a key is told that this donor has no TLS; after, it is let in, and no other key is.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool setpriv jq
[[ $EUID = 0 ]] || skip "needs root, to be a user without keys"

# For who cannot look into our folders.
place=$(mktemp -d /tmp/weft-place.XXXXXX)
cleanup_add "rm -rf $place"
chmod 755 "$place"
cp "$WEFT_BIN"/weft-{serve,key} "$place"
user=54321
install -d -o $user -m 700 "$place/home" "$place/run"
as_user=(env "HOME=$place/home" "WEFT_RUN_DIR=$place/run"
	setpriv --reuid "$user" --regid "$user" --clear-groups)

"${as_user[@]}" "$place/weft-serve" --listen 127.0.0.1:0 --keep 0 --memory r=1M \
	>"$TMP/theirs" 2>&1 &
pid=$!
cleanup_add "kill $pid 2>/dev/null || :"
wait_for -t 60 grep -qx ready "$TMP/theirs"
donor=$(sed -n 's|^listening on ||p' "$TMP/theirs")

echo "no key yet"
weft key new node7 --store "$TMP/other" --out "$TMP/wrong" >/dev/null
! weft list --key "$TMP/wrong" "weft://node7@$donor" >"$TMP/log" 2>&1 ||
	fail "let in: $(<"$TMP/log")"
grep -q "this server has no TLS; there is a key for it" "$TMP/log" ||
	fail "$(<"$TMP/log")"

echo "the first"
(cd "$place/home" && "${as_user[@]}" "$place/weft-key" new node7 >"$TMP/log") ||
	fail "$(<"$TMP/log")"
wait_for grep -q "the keys in $place/home/.config/weft/keys have changed: there are 1 now" \
	"$TMP/theirs"
cp "$place/home/node7.key" "$TMP/key"
weft list --key "$TMP/key" "weft://node7@$donor" >"$TMP/log" 2>&1 || fail "$(<"$TMP/log")"
weft attach --key "$TMP/key" "weft://node7@$donor/r" --name a --socket "$TMP/s" \
	>"$TMP/log" 2>&1 ||
	fail "$(<"$TMP/log")"
[[ $(weft status a --json | jq -r '.attachments[0].donors[0].transport') = tcp+?(k)tls ]] ||
	fail "$(weft status a)"
weft detach a >/dev/null

echo "another's is not that"
! weft list --key "$TMP/wrong" "weft://node7@$donor" >"$TMP/log" 2>&1 ||
	fail "let in: $(<"$TMP/log")"
kill "$pid"
wait "$pid" || fail "exit status $?"
