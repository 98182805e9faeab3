# SPDX-License-Identifier: MIT
# weft serve --backend: a server that is silent for too long is given up, although another answer
# was an error; what it writes late is overwritten, and the next run is another epoch.
# tier: long
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdkit qemu-io jq
mkdir "$TMP/dir"
truncate -s 1M "$TMP/dir/file"
plugin=("$WEFT_SRC/tests/support/silent-store.py" "file=$TMP/dir/file")
nbdkit -U - python "${plugin[@]}" --run true 2>/dev/null ||
	skip "nbdkit's python plugin is not installed"
rm -f "$TMP/dir/connections"
nbdkit -U "$TMP/sock" -P "$TMP/pid" -f python "${plugin[@]}" 2>"$TMP/log" &
wait_for test -s "$TMP/pid"

io() { # COMMAND…: of qemu-io on the region
	local words=()
	for word; do words+=(-c "$word"); done
	qemu-io -f raw "${words[@]}" "nbd${URI#weft}" >"$TMP/io" 2>&1
	! grep -qi 'failed\|error' "$TMP/io"
}
holds() { # BYTE
	[[ $(od -v -An -tu1 -N 262144 -w1 "$TMP/dir/file" | sort -u | tr -d ' ') = "$1" ]]
}
has_lines() { # NAME NR: the store's file
	[[ $(wc -l <"$TMP/dir/$1") = "$2" ]]
}
epoch() {
	weft status --json | jq -r '.donors[0].regions[0].epoch'
}
uri="nbd+unix:///?socket=$TMP/sock"

start_donor --backend "r=$uri" --backend-stable
first=$(epoch)
has_lines connections 1 || fail "more than one connection"
touch "$TMP/dir/hold"
io 'write -P 1 0 256k' flush &
flusher=$!
wait_for has_lines held 3
rm "$TMP/dir/hold"
! wait "$flusher" || fail "a flush that was not answered succeeded"

echo "== nothing is left on its way over the connection that goes on"
io 'write -P 2 0 256k' flush || fail "$(<"$TMP/io")"
has_lines connections 2 || fail "connections: $(wc -l <"$TMP/dir/connections")"
holds 2 || fail "the flush did not bring it there"
grep -q 'may carry out a write late' "$DONOR_LOG" || fail "$(<"$DONOR_LOG")"

echo "== what comes late is of no epoch that was seen"
touch "$TMP/dir/go"
wait_for has_lines late 3
! holds 2 || fail "nothing came late"
rm "$TMP/dir/go"
io 'flush' || fail "$(<"$TMP/io")"
holds 2 || fail "a flush left what came late"
stop_donor
holds 2 || fail "what came late was left there"
start_donor --backend "r=$uri" --backend-stable
[[ $(epoch) != "$first" ]] || fail "the same epoch"
io 'read -P 2 0 256k' || fail "$(<"$TMP/io")"
stop_donor
