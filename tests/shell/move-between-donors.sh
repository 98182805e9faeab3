# SPDX-License-Identifier: MIT
# Between two donors: what cannot move is named; an abort costs nothing; a move goes on without its
# mover, and the next one joins it; a donor that is killed midway leaves the region with the first.
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq qemu-io

ports=("$(free_port)" "$(free_port)")
giver() { start_donor --memory r=32M --file "f=$TMP/file" --listen "127.0.0.1:${ports[0]}"; }
taker() { start_donor --take 64M --listen "127.0.0.1:${ports[1]}"; }
from=weft://127.0.0.1:${ports[0]} to=weft://127.0.0.1:${ports[1]}
random_file "$TMP/contents" 33554432
truncate -s 1M "$TMP/file"
giver
giver_pid=$DONOR_PID
taker
taker_pid=$DONOR_PID
weft push "$TMP/contents" "$from/r" >/dev/null || fail "push"

# refused TEXT ARGUMENT…
refused() {
	local code=0
	weft move "${@:2}" "$to" >"$TMP/out" 2>"$TMP/err" || code=$?
	[[ $code = 1 ]] || fail "exit status $code: $(<"$TMP/out")"
	grep -qF "$1" "$TMP/out" "$TMP/err" || fail "not '$1': $(cat "$TMP/out" "$TMP/err")"
}
# is_there URI: the region has the contents.
is_there() {
	weft pull "$1" "$TMP/there" >/dev/null || fail "pull from $1"
	cmp "$TMP/contents" "$TMP/there" || fail "other contents at $1"
}
# slowly: begins a move, which is pulling when this returns.
pulls() { jq -se 'any(.[]; .phase == "pull")' "$TMP/json" >/dev/null; }
slowly() {
	weft-move --json --bandwidth "$1" "$from/r" "$to" >"$TMP/json" 2>"$TMP/err" &
	mover=$!
	wait_for -t 60 pulls
}

echo "what cannot move"
refused "is a file, and this donor takes none" "$from/f"
refused "there is no region 'none'" "$from/none"
refused "cannot ask for weft://127.0.0.1:1/r" weft://127.0.0.1:1/r
mkfifo "$TMP/commands"
stdbuf -oL qemu-io -f raw "nbd://127.0.0.1:${ports[0]}/r" <"$TMP/commands" >"$TMP/stock" 2>&1 &
stock=$!
exec 3>"$TMP/commands"
echo "read 0 4k" >&3
wait_for -t 60 grep -q "read 4096/4096" "$TMP/stock"
refused "used by who cannot follow: 1 stock NBD client;" "$from/r"
refused "used by who cannot follow: 1 stock NBD client;" --dry-run "$from/r"
echo "read 4k 4k" >&3
exec 3>&-
wait "$stock" || fail "the stock client was disturbed: $(<"$TMP/stock")"

echo "an abort"
slowly 1M
kill -INT "$mover"
code=0
wait "$mover" || code=$?
[[ $code = 1 ]] || fail "exit status $code"
grep -qx "weft-move: aborted: $from still has the region, nothing was lost" "$TMP/err" ||
	fail "$(<"$TMP/err")"
is_there "$from/r"
weft list "$to" | grep -qx "no regions" || fail "$(weft list "$to")"

echo "the donor that takes it is killed"
slowly 1M
kill -KILL "$taker_pid"
wait "$taker_pid" || :
taker
taker_pid=$DONOR_PID
code=0
wait "$mover" || code=$?
[[ $code = 1 ]] || fail "exit status $code: $(<"$TMP/err")"
grep -qx "weft-move: $from has region 'r' and serves it" "$TMP/err" || fail "$(<"$TMP/err")"
is_there "$from/r"

echo "the donor that gives it is killed"
slowly 1M
kill -KILL "$giver_pid"
wait "$giver_pid" || :
giver
giver_pid=$DONOR_PID
code=0
wait "$mover" || code=$?
[[ $code = 1 ]] || fail "exit status $code: $(<"$TMP/err")"
is_there "$from/r"

echo "the mover is killed, and another joins"
slowly 8M
kill -KILL "$mover"
wait "$mover" || :
weft move "$from/r" "$to" >"$TMP/out" 2>"$TMP/err" || fail "$(<"$TMP/err")"
grep -q "^moved $from/r to $to/r: 32 MiB in .*, all compared, downtime" "$TMP/out" ||
	fail "$(<"$TMP/out")"
grep -q "region 'r' begins to move" "$DONOR_LOG" || fail "$(<"$DONOR_LOG")"
[[ $(grep -c "region 'r' begins to move" "$DONOR_LOG") = 1 ]] || fail "it began anew"
is_there "$to/r"
! weft list "$from" | grep "^r " || fail "it is lent twice"
kill "$giver_pid" "$taker_pid"
wait "$giver_pid" || fail "exit status $?"
wait "$taker_pid" || fail "exit status $?"
