# SPDX-License-Identifier: MIT
# What a killed bridge left in its cache file goes on without the bridge's state, by what the file
# says itself; but a file that does not say of which contents it is, or says others than the state,
# is not written back.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"
need_tool nbdcopy

truncate -s 8M "$TMP/region"
start_donor --file "r=$TMP/region" --lease 2
socket="nbd+unix:///?socket=$TMP/s"
port=$PORT
leave() { # something in the cache file alone
	weft attach "$URI" --socket "$TMP/s" --cache 4M --cache-file "$TMP/cache" \
		--push-interval 600 >/dev/null || fail "attach"
	head -c 65536 /dev/zero | tr '\0' "$1" >"$TMP/data"
	nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
	kill_bridge
}
again() {
	weft attach "$URI" --socket "$TMP/s" --cache 4M --cache-file "$TMP/cache" >"$TMP/out" 2>&1
}

echo "the donor closed the file meanwhile: the cache file says what its bridge was granted"
leave A
rm "$WEFT_RUN_DIR/attach-r.json"
stop_donor || fail "the donor: $?"
start_donor --listen "127.0.0.1:$port" --file "r=$TMP/region" --lease 2
again || fail "$(cat "$TMP/out")"
weft detach r >/dev/null || fail "detach"
reads 0x41 0 65536 "nbd://127.0.0.1:$port/r" || fail "$(cat "$TMP/io")"

epoch() { # OFFSET's word in the cache file is no epoch, or another
	printf '%b' "$1" | dd of="$TMP/cache" bs=1 seek=4576 conv=notrunc status=none
}
not_written_back() { # TEXT
	! again || fail "attached: $(cat "$TMP/out")"
	grep -q "$1.*weft rescue $TMP/cache FILE" "$TMP/out" || fail "$(cat "$TMP/out")"
	weft rescue "$TMP/cache" "$TMP/saved" >/dev/null || fail "rescue"
	cmp -n 65536 "$TMP/saved" "$TMP/data" || fail "other bytes are saved"
	rm -f "$TMP/cache" "$TMP"/saved*
}

echo "no epoch, and no state"
leave B
rm "$WEFT_RUN_DIR/attach-r.json"
epoch '\0\0\0\0\0\0\0\0'
not_written_back "does not say of which contents"

echo "another epoch than the state's"
wait_for weft attach "$URI" --socket "$TMP/s"
weft detach r >/dev/null
leave C
epoch '\1\2\3\4\5\6\7\10'
not_written_back "of other contents"
weft detach --force r >/dev/null
