# SPDX-License-Identifier: MIT
# weft move --post-copy over a slow line: a request that needs more than comes in 15 s waits as long
# as something of it comes, and has no error.
# tier: long
# timeout: 300
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdcopy

random_file "$TMP/contents" 32M
start_donor --memory r=32M
A=weft://127.0.0.1:$PORT
nbdcopy "$TMP/contents" "nbd://127.0.0.1:$PORT/r"
start_donor --listen 127.0.0.1:0 --memory x=1M --take 1G
B=weft://127.0.0.1:$PORT
weft move --post-copy --bandwidth 1M "$A/r" "$B" >"$TMP/moved" 2>&1 &
mover=$!
is_there() { weft list "$B" | grep -q '^r '; }
wait_for -t 60 is_there
# All of it in one request.
nbdcopy --connections=1 --requests=1 --request-size=$((32 << 20)) "nbd://127.0.0.1:$PORT/r" \
	"$TMP/got" || fail "$(<"$DONOR_LOG")"
cmp "$TMP/contents" "$TMP/got"
wait "$mover" || fail "$(<"$TMP/moved")"
