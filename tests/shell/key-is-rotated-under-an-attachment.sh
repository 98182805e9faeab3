# SPDX-License-Identifier: MIT
# A key is rotated and revoked under an attachment that lives: with both keys and with the new one
# alone it goes on, whenever the borrower's file is replaced; without a key it does not.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq qemu-io

cd "$TMP"
weft key new node7 --store store --out key >/dev/null
start_donor --keys store --memory r=8M
weft attach "${URI/:\/\//://node7@}" --socket sock --name a --key key --dead-timeout 0 >/dev/null
shown() { weft status a --json | jq -r ".attachments[0] | $1"; }
is() { [[ $(shown .state) = "$1" ]]; }
has() { [[ $(shown '.donors[0].key.identity') = "$1" ]]; }
moves() {
	qemu-io -f raw -c 'write -P 7 0 64k' -c 'read -P 7 0 64k' "nbd+unix:///?socket=sock" >out ||
		fail "$(<out)"
}
moves

echo "the borrower has the new file before the old key ends"
weft key rotate node7 --store store --out new >/dev/null
moves
has node7 || fail "the key has changed by itself: $(shown .)"
mv new key
weft key rotate node7 --finish --store store >/dev/null
wait_for has node7~2
wait_for is ready
moves

echo "and after"
weft key rotate node7 --store store --out new >/dev/null
weft key rotate node7 --finish --store store >/dev/null
wait_for is reconnecting
mv new key
wait_for has node7
wait_for is ready
moves

echo "no key"
weft key revoke node7 --store store >/dev/null
wait_for is reconnecting
tells() { [[ $(weft status a) = *"no longer takes the key node7 of $TMP/key: "*"not any more"* ]]; }
wait_for tells
wait_for grep -q "refused .*node7" "$DONOR_LOG"
warning="'a' is reconnecting: the donor no longer takes the key node7 of $TMP/key: .*; the file is"
warned() { [[ $(grep -c "$warning" "$WEFT_RUN_DIR/attach-a.log") = 1 ]]; }
wait_for warned

echo "one of the name again, after a while"
# Every second at first, then every five: two lanes, up to each.
sleep 11
refused() { weft status --json | jq '.donors[0].counters.refused'; }
before=$(refused)
sleep 10
nr=$(($(refused) - before))
((nr >= 2 && nr <= 8)) || fail "it asked $nr times within 10 s"
weft key new node7 --store store --out new >/dev/null
mv new key
wait_for -t 20 is ready
moves
warned || fail "$(cat "$WEFT_RUN_DIR/attach-a.log")"
weft key revoke node7 --store store >/dev/null
wait_for tells
# Nobody answers its last FLUSH.
weft detach --force a >/dev/null 2>&1 || :
