# SPDX-License-Identifier: MIT
# The line of a process with a map is silent for longer than its lease, while threads fault, and
# another writes: an access that waits is SIGBUS once the lease and the dead timeout are over, no
# thread ever reads the other's bytes, or zeros; and once the process hears of it all of the map is
# SIGBUS, in each mode, and nothing of it is written.
# presets: dev asan
# timeout: 300
# processors: 2
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/map-trouble.sh"
need_tool nbdcopy python3

random_file "$TMP/other" 64M
others() { nbdcopy "$TMP/other" "nbd://127.0.0.1:$PORT/r" 2>"$TMP/copy"; }
for mode in paged compat resident; do
	echo "== $mode"
	start_donor --memory r=64M --lease 2
	start_line ""
	map_begins $mode "$LINE"
	kill -STOP "$LINE_PID"
	wait_for -t 30 others
	kill -CONT "$LINE_PID"
	map_ends
	grep -q 'lost: Stale' "$TMP/map" || fail "it is lost for another reason"
	nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/back"
	cmp "$TMP/other" "$TMP/back" || fail "it has written to what the other wrote"
	rm -f "$TMP/back"
	stop_line
	stop_donor || fail "the donor's exit status: $?"
done
