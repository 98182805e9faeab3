# SPDX-License-Identifier: MIT
# A region whose chunks are keys of a real Redis server, by the plugin for nbdkit that is an example
# in the source: what was written is in Redis after a flush, a missing key reads as zeros, and a
# server that is gone is an error.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool redis-server redis-cli nbdkit nbdcopy qemu-io
nbdkit -U - python "$WEFT_SRC/fabric/examples/redis-store.py" size=1M --run true 2>/dev/null ||
	skip "nbdkit's python plugin, or python3-redis, is not installed"

start_redis() {
	redis-server --port 0 --unixsocket "$TMP/redis" --dir "$TMP" --appendonly yes \
		--appendfsync always --save '' >"$TMP/redis.log" 2>&1 &
	redis=$!
	wait_for -t 30 redis-cli -s "$TMP/redis" ping
}
start_redis
nbdkit -U "$TMP/sock" -P "$TMP/pid" -f python "$WEFT_SRC/fabric/examples/redis-store.py" \
	size=4M url="unix://$TMP/redis" prefix=r 2>"$TMP/nbdkit.log" &
wait_for -t 30 test -s "$TMP/pid"
uri="nbd+unix:///?socket=$TMP/sock"
start_donor --backend "r=$uri"

echo "== missing keys are zeros; what is flushed is there"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/seen"
cmp "$TMP/seen" <(head -c 4194304 /dev/zero) || fail "an empty store is not all zeros"
random_file "$TMP/file" 4194304
nbdcopy --flush "$TMP/file" "nbd://127.0.0.1:$PORT/r"
(($(redis-cli -s "$TMP/redis" --scan --pattern 'r-*' | wc -l) == 64)) || fail "not 64 chunks"
# --raw adds a newline.
redis-cli -s "$TMP/redis" --raw get r-65536 >"$TMP/chunk"
cmp -n 65536 "$TMP/chunk" "$TMP/file" 0 65536 || fail "a chunk has other bytes"

echo "== a server that is gone"
kill -KILL "$redis"
wait "$redis" || :
qemu-io -f raw -c 'write -P 5 0 4k' -c flush "nbd://127.0.0.1:$PORT/r" >"$TMP/io" 2>&1 || :
grep -qi error "$TMP/io" || fail "a flush to nowhere succeeded: $(<"$TMP/io")"
start_redis
flushed() {
	qemu-io -f raw -c flush "nbd://127.0.0.1:$PORT/r" >"$TMP/io" 2>&1
	! grep -qi error "$TMP/io"
}
wait_for -t 30 flushed
stop_donor
nbdcopy "$uri" "$TMP/seen"
cmp -n 4096 "$TMP/seen" <(head -c 4096 /dev/zero | tr '\0' '\5') || fail "the write was lost"
cmp -i 4096 "$TMP/seen" "$TMP/file" || fail "other bytes than before"
