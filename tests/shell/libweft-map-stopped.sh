# SPDX-License-Identifier: MIT
# A process with a map is stopped, its handlers and the threads that fault, for longer than its
# lease, while another writes and goes: then the map is lost, and says so; each access is SIGBUS in
# each mode, none is zeros or the other's bytes, and nothing of it is written.
# presets: dev asan
# timeout: 300
# processors: 2
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/map-trouble.sh"
need_tool nbdcopy

random_file "$TMP/other" 64M
others() { nbdcopy "$TMP/other" "nbd://127.0.0.1:$PORT/r" 2>"$TMP/copy"; }
for mode in paged compat resident; do
	echo "== $mode"
	start_donor --memory r=64M --lease 2
	map_begins $mode "$URI"
	kill -STOP "$MAP_PID"
	wait_for -t 30 others
	kill -CONT "$MAP_PID"
	map_ends
	grep -q 'lost: Stale' "$TMP/map" || fail "it is lost for another reason"
	nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/back"
	cmp "$TMP/other" "$TMP/back" || fail "it has written to what the other wrote"
	rm -f "$TMP/back"
	stop_donor || fail "the donor's exit status: $?"
done
