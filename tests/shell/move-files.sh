# SPDX-License-Identifier: MIT
# A file moves between donors while it is written: it is on the taker's disk, with its mark, before
# it is the taker's, and whoever opens what is left at the giver begins anew.
# timeout: 120
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3

# mark FILE: its mark; donor PORT WHAT…
mark() {
	python3 -c 'import os, sys
print(os.getxattr(sys.argv[1], "user.weft.epoch").decode())' "$1"
}
donor() { start_donor --listen "127.0.0.1:$1" "${@:2}"; }

DATA=$TMP/data A_PORT=$(free_port) B_PORT=$(free_port)
A=weft://127.0.0.1:$A_PORT B=weft://127.0.0.1:$B_PORT
mkdir "$DATA" "$TMP/taken" "$TMP/back"
truncate -s 4M "$DATA/a"
donor "$A_PORT" --file r="$DATA/a" --take "$TMP/back"
A_PID=$DONOR_PID
donor "$B_PORT" --take "$TMP/taken" --take 1M
B_PID=$DONOR_PID
epoch() { weft list "$1" --json | jq -r '.[] | select(.name == "r") | .epoch'; }

weft attach "$A/r" --name box --socket "$TMP/s" --foreground >"$TMP/bridge" 2>&1 &
bridge=$!
wait_for -t 60 test -S "$TMP/s"
python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/s" "$TMP/stop" 1 500 \
	>"$TMP/writer" 2>&1 &
writer=$!
wait_for -t 60 test -e "$TMP/stop.began"
began=$(epoch "$A")

echo "== there"
weft move --dry-run "$A/r" "$B" || fail "a dry run"
timeout 60 weft move --wait "$A/r" "$B" >"$TMP/out" 2>"$TMP/err" || fail "$(cat "$TMP/err")"
[[ $(epoch "$B") = "$began" ]] || fail "another epoch: $(epoch "$B"), not $began"
[[ $(mark "$DATA/a") = "v2 state=leaves "*" by=0000000000000000 "* ]] || fail "$(mark "$DATA/a")"
! weft list "$A" | grep -q '^r ' || fail "$(weft list "$A")"
[[ $(mark "$TMP/taken/r") = *" epoch=$began "* ]] || fail "$(mark "$TMP/taken/r")"

echo "== what is left at the giver is no part of it"
start_donor --file r="$DATA/a"
[[ $(epoch "weft://127.0.0.1:$PORT") != "$began" ]] || fail "the file is there twice"
kill "$DONOR_PID"
wait "$DONOR_PID"

echo "== and back, into a directory; the file that came is gone where it was"
timeout 60 weft move --wait "$B/r" "$A" >"$TMP/out" 2>"$TMP/err" || fail "$(cat "$TMP/err")"
[[ $(epoch "$A") = "$began" && -f $TMP/back/r && ! -e $TMP/taken/r ]] || fail "$(ls "$TMP"/*)"
touch "$TMP/stop"
wait "$writer" || fail "$(cat "$TMP/writer" "$TMP/bridge")"
cat "$TMP/writer"

echo "== a clean restart of both goes on, each by its notes"
kill "$A_PID" "$B_PID"
wait "$A_PID" "$B_PID"
! timeout 60 weft serve --listen "127.0.0.1:$A_PORT" --file r="$DATA/a" >"$TMP/out" 2>&1 ||
	fail "it lends the file that was left"
grep -qF "is in $TMP/back/r, not in $DATA/a" "$TMP/out" || fail "$(<"$TMP/out")"
donor "$A_PORT" --take "$TMP/back"
[[ $(epoch "$A") = "$began" ]] || fail "$(<"$DONOR_LOG")"
weft detach box || fail "detach"
wait "$bridge" || :

echo "== what cannot move"
start_donor --directory "$DATA"
refused() { # TEXT URI TO
	! timeout 60 weft move "$2" "$3" >"$TMP/out" 2>"$TMP/err" || fail "it moved"
	grep -qF "$1" "$TMP/err" || fail "not '$1': $(<"$TMP/err")"
}
refused "is a file of a directory that is lent" "weft://127.0.0.1:$PORT/a" "$A"
truncate -s 1M "$TMP/z"
start_donor --file z="$TMP/z" --memory m=1M
Z=weft://127.0.0.1:$PORT
truncate -s 1M "$TMP/back/z"
refused "there is a file $TMP/back/z already" "$Z/z" "$A"
refused "and its name cannot be one's" "$Z/z" "$A/a%2Fb"
refused "this donor takes no memory" "$Z/m" "$A"
NONE=$(free_port)
donor "$NONE" --take 1M
refused "is a file, and this donor takes none" "$Z/z" "weft://127.0.0.1:$NONE"
