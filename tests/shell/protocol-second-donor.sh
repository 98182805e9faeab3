# SPDX-License-Identifier: MIT
# Another implementation of a donor, written from weft-protocol(7) alone, serves weft's bridges:
# over two lanes, after the bridge was killed, against a second borrower and stock clients, and when
# the bridge was silent for too long.
# presets: dev asan
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3 qemu-io jq

python3 "$WEFT_SRC/tests/support/second-donor.py" $((16 << 20)) 3000 >"$TMP/donor" 2>"$TMP/errors" &
wait_for grep -q . "$TMP/donor"
PORT=$(head -n 1 "$TMP/donor")
uri=weft://127.0.0.1:$PORT/m stock=nbd://127.0.0.1:$PORT/m nbd="nbd+unix:///?socket=$TMP/s"
io() { qemu-io -f raw "$@" >"$TMP/io" 2>&1 && ! grep -q 'verification failed' "$TMP/io"; }
attachment() { weft status m --json | jq -r ".attachments[0].$1"; }
state_is() { [[ $(attachment state) = "$1" ]]; }
said() {
	grep -qxE "$1" "$TMP/donor" ||
		fail "the donor did not say '$1': $(cat "$TMP/donor" "$TMP/errors")"
}

weft list "weft://127.0.0.1:$PORT" >"$TMP/list"
grep '^m  *16 MiB .*memory of another donor' "$TMP/list" || fail "weft list: $(cat "$TMP/list")"
weft attach "$uri" --socket "$TMP/s" --lanes 2
# The second lane may come later.
two_lanes() { [[ $(grep -c 'granted .* 1\.0 w' "$TMP/donor") = 2 ]]; }
wait_for two_lanes
io "$nbd" -c 'write -P 0x11 0 16M' -c flush -c 'write -z 1M 1M' -c 'read -P 0 1M 1M' ||
	fail "$(cat "$TMP/io")"

echo "== a bridge that is killed, and taken over"
pid=$(attachment pid)
kill -KILL "$pid"
wait_for gone "$pid"
weft attach "$uri" --socket "$TMP/s"
said 'granted .* 2\.0 w'
io "$nbd" -c 'read -P 0x11 0 1M' -c 'read -P 0x11 2M 14M' || fail "$(cat "$TMP/io")"

echo "== others are refused"
! weft attach "$uri" --name other --socket "$TMP/other" 2>"$TMP/why" || fail "a second writer"
grep 'somebody else has it' "$TMP/why" || fail "the reason: $(cat "$TMP/why")"
! io "$stock" -c 'read 0 4k' || fail "a stock client"
sleep 5 # more than the lease, with nothing but probes
state_is ready || fail "$(weft status)"
! io "$stock" -c 'read 0 4k' || fail "a stock client, a lease later"

echo "== silent for too long, and nobody wrote"
pid=$(attachment pid)
kill -STOP "$pid"
wait_for grep -qx lapsed "$TMP/donor"
kill -CONT "$pid"
wait_for state_is ready
wait_for grep -q 'granted .* 2\.1 w' "$TMP/donor"
io "$nbd" -c 'write -P 0x22 0 1M' -c 'read -P 0x22 0 1M' || fail "$(cat "$TMP/io")"

echo "== silent for too long, and another wrote"
kill -STOP "$pid"
lapsed_twice() { [[ $(grep -cx lapsed "$TMP/donor") = 2 ]]; }
wait_for lapsed_twice
io "$stock" -c 'write -P 0x33 0 1M' || fail "$(cat "$TMP/io")"
kill -CONT "$pid"
wait_for state_is stale
! io "$nbd" -c 'read 0 4k' || fail "it reads on"
weft reset m --discard
wait_for state_is ready
said 'granted .* 3\.0 w'
io "$nbd" -c 'read -P 0x33 0 1M' || fail "$(cat "$TMP/io")"

echo "== a goodbye"
weft detach m
# The goodbye is on its way.
wait_for io "$stock" -c 'read -P 0x33 0 1M'
[[ ! -s $TMP/errors ]] || fail "$(cat "$TMP/errors")"
