# SPDX-License-Identifier: MIT
# While one of two donors is waited for, the other's region is nobody's: others may use it, and
# write.  What was granted by a try that failed is not remembered: the attach that comes at last
# gets whatever there is then.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

port=$(free_port)
truncate -s 1M "$TMP/one" "$TMP/two"
start_donor --file "r=$TMP/one"
first=$URI stock=nbd://127.0.0.1:$PORT/r
weft attach "$first" "weft://127.0.0.1:$port/r" --socket "$TMP/s" --name r \
	--wait 60 >"$TMP/out" 2>&1 &
attach=$!
wait_for grep -q "trying again" "$TMP/out"
written() { writes 0x42 0 65536 "$stock"; }
wait_for written
start_donor --listen "127.0.0.1:$port" --file "r=$TMP/two"
wait "$attach" || fail "$(cat "$TMP/out")"
reads 0x42 0 65536 "nbd+unix:///?socket=$TMP/s" ||
	fail "it does not have what is there: $(cat "$TMP/io")"
weft detach r >/dev/null
