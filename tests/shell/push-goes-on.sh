# SPDX-License-Identifier: MIT
# A push that is stopped says so and keeps what it wrote; the next one goes on from there.  Beside
# another writer there is none.  A donor that is killed and comes back is pushed to as if nothing
# had been.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy

start_donor --allow-insecure --memory r=64M
head -c 64M /dev/urandom >"$TMP/file"

# The pipe does not end before the signal has come.
mkfifo "$TMP/pipe"
weft push --json "$TMP/pipe" "$URI" >"$TMP/json" 2>"$TMP/err" &
pusher=$!
exec 3>"$TMP/pipe"
head -c 20M "$TMP/file" >&3
written() { # that four chunks are at the donor
	weft status --json | jq -e '[.. | .written_bytes? // empty] | add >= 16777216' >/dev/null
}
wait_for written
# Nobody else is let in meanwhile.
weft push "$TMP/file" "$URI" 2>"$TMP/busy" && fail "two pushes at a time"
grep -q 'is held by writer' "$TMP/busy" || fail "busy: $(cat "$TMP/busy")"
kill -INT "$pusher"
status=0
wait "$pusher" || status=$?
exec 3>&-
((status == 1)) || fail "stopped: exit status $status: $(cat "$TMP/err")"
grep -q 'weft-push: stopped: .* the same command goes on' "$TMP/err" || fail "$(cat "$TMP/err")"
# The donor has four chunks; the last one's answer may come after the signal.
jq -e '.complete == false and .different_bytes >= 12582912' "$TMP/json" >/dev/null ||
	fail "$(cat "$TMP/json")"
before=$(jq .different_bytes "$TMP/json")
weft push --json "$TMP/file" "$URI" >"$TMP/json" || fail "it does not go on"
jq -e --argjson before "$before" '.complete and .different_bytes <= 67108864 - $before' \
	"$TMP/json" >/dev/null || fail "$before, then $(cat "$TMP/json")"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/now"
cmp "$TMP/file" "$TMP/now" || fail "not the same"

# Killed in the middle: the memory is kept, and the push goes on by itself.
head -c 64M /dev/urandom >"$TMP/file"
weft push --json "$TMP/pipe" "$URI" >"$TMP/json" 2>"$TMP/err" &
pusher=$!
exec 3>"$TMP/pipe"
head -c 20M "$TMP/file" >&3
wait_for written
stop_donor KILL || :
# It does not get the pipe, which would never end then.
start_donor --allow-insecure --memory r=64M --listen "127.0.0.1:$PORT" 3>&-
tail -c +20971521 "$TMP/file" >&3
exec 3>&-
wait "$pusher" || fail "after the donor's death: $(cat "$TMP/err")"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/now"
cmp "$TMP/file" "$TMP/now" || fail "not the same after the donor's death"
