# SPDX-License-Identifier: MIT
# weft serve --backend: an NBD server's contents are lent from memory; a flush brings changes there,
# or fails; a server that is gone loses nothing, and nobody sees old bytes.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdkit nbdcopy qemu-io jq python3

store() { # nbdkit's arguments
	nbdkit -U "$TMP/store.sock" -P "$TMP/store.pid" -f "$@" 2>"$TMP/store.log" &
	store=$!
	wait_for test -s "$TMP/store.pid"
}
end_store() {
	kill -KILL "$store"
	wait "$store" || :
	rm -f "$TMP/store.sock" "$TMP/store.pid"
}
io() { # COMMAND…: of qemu-io on the region
	local words=()
	for word; do words+=(-c "$word"); done
	qemu-io -f raw "${words[@]}" "nbd${URI#weft}" >"$TMP/io" 2>&1
	! grep -qi 'failed\|error' "$TMP/io"
}
uri="nbd+unix:///?socket=$TMP/store.sock"
random_file "$TMP/file" 4194304
cp "$TMP/file" "$TMP/before"

echo "== read, written, flushed"
store file "$TMP/file"
start_donor --backend "r=$uri"
nbdcopy "nbd${URI#weft}" "$TMP/seen"
cmp "$TMP/seen" "$TMP/before" || fail "other bytes"
weft status --json | jq -e '.donors[0].regions[0].backing == "backend"' >/dev/null ||
	fail "$(weft status --json)"
io 'write -P 5 64k 8k' flush || fail "$(<"$TMP/io")"
cmp -n 65536 "$TMP/file" "$TMP/before" || fail "what was not written is other bytes"
[[ $(od -v -An -tu1 -j 65536 -N 8192 -w1 "$TMP/file" | sort -u | tr -d ' ') = 5 ]] ||
	fail "the flush did not bring it there"

echo "== the server dies: a flush is an error, and nothing is lost"
end_store
! io 'write -P 6 128k 8k' flush || fail "a flush to nowhere succeeded"
io 'read -P 6 128k 8k' || fail "the newest bytes are not there: $(<"$TMP/io")"
io 'read -P 5 64k 8k' || fail "what was written before is not there: $(<"$TMP/io")"
weft status --json | jq -re '.donors[0].regions[0].trouble' | grep -q "its backend failed" ||
	fail "no trouble: $(weft status --json)"
# It comes back without what it had not made durable.
cp "$TMP/before" "$TMP/file"
store file "$TMP/file"
wait_for -t 20 io flush
nbdcopy "nbd${URI#weft}" "$TMP/seen"
cmp "$TMP/seen" "$TMP/file" || fail "the backend does not have what the region has"
weft status --json | jq -e '.donors[0].regions[0].trouble == null' >/dev/null || fail "trouble"
cp "$TMP/file" "$TMP/before"

echo "== what was not flushed is written back at the end"
io 'write -P 7 256k 4k' || fail "$(<"$TMP/io")"
stop_donor
[[ $(od -v -An -tu1 -j 262144 -N 4096 -w1 "$TMP/file" | sort -u | tr -d ' ') = 7 ]] ||
	fail "the end did not bring it there"

epoch() {
	weft status --json | jq -r '.donors[0].regions[0].epoch'
}
listen=${URI#weft://}
listen=${listen%/r}
again() { # OPTION…
	start_donor --listen "$listen" --backend "r=$uri" "$@"
}
echo "== each run is an epoch"
again
first=$(epoch)
stop_donor
again
[[ $(epoch) != "$first" ]] || fail "the same epoch"
stop_donor

echo "== --backend-stable: over a clean stop alone"
again --backend-stable
first=$(epoch)
io 'write -P 8 0 4k' flush || fail "$(<"$TMP/io")"
stop_donor
again --backend-stable
[[ $(epoch) = "$first" ]] || fail "another epoch after a clean stop"
# Nothing was on its way to a server that ended meanwhile.
end_store
! io 'write -P 9 0 4k' flush || fail "a flush to nowhere succeeded"
store file "$TMP/file"
wait_for -t 20 io flush
stop_donor
again --backend-stable
[[ $(epoch) = "$first" ]] || fail "another epoch: the server was started again"
kill -KILL "$DONOR_PID"
wait_for gone "$DONOR_PID"
again --backend-stable
second=$(epoch)
[[ $second != "$first" ]] || fail "the same epoch after a crash"
# An end that cannot bring everything there is no clean one.
end_store
! io 'write -P 9 0 4k' flush || fail "a flush to nowhere succeeded"
kill "$DONOR_PID"
wait_for -t 60 gone "$DONOR_PID"
store file "$TMP/file"
again --backend-stable
[[ $(epoch) != "$second" ]] || fail "the same epoch, and bytes are missing"
stop_donor
end_store

refused() { # WORDS [OPTION…]
	local status=0
	timeout 60 weft serve --listen 127.0.0.1:0 --backend "r=$uri" "${@:2}" >"$TMP/out" 2>&1 ||
		status=$?
	[[ $status = 1 ]] || fail "status $status: $(<"$TMP/out")"
	grep -q "$1" "$TMP/out" || fail "$(<"$TMP/out")"
}
echo "== a run without a mark, or under another name, is not forgotten; nothing is lent twice"
store file "$TMP/file"
again --backend-stable
first=$(epoch)
stop_donor
again
refused "is in use: another" --backend-stable
refused "is in use: another"
stop_donor
refused "is in use: another" --backend "twice=$uri"
again --backend-stable
second=$(epoch)
[[ $second != "$first" ]] || fail "the same epoch, and another run may have written"
refused "is in use: another"
stop_donor
again --backend-stable
[[ $(epoch) = "$second" ]] || fail "another epoch after a clean stop"
stop_donor
end_store

echo "== a server that hangs holds up nobody's end"
store file "$TMP/file"
again
kill -STOP "$store"
kill "$DONOR_PID"
wait_for gone "$DONOR_PID"
end_store

echo "== a server that fails, or is not there, is an error"
refused "region 'r': backend nbd+unix://"
store --filter=error file "$TMP/file" error-pread=EIO error-pread-rate=100%
refused "cannot load its backend into memory: Input/output error"
end_store

echo "== answers that are missing are not there, in whatever order others came"
for _ in {1..3}; do
	python3 "$WEFT_SRC/tests/support/nbd-cuts.py" "$TMP/store.sock" &
	store=$!
	wait_for test -S "$TMP/store.sock"
	refused "cannot load its backend into memory"
	end_store
done
