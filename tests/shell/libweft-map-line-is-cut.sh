# SPDX-License-Identifier: MIT
# Each connection of a process with a map is reset 200 ms after it was made, while threads fault: no
# access is SIGBUS, each finds what was written last, and the donor has all of it in the end, in
# each mode.
# presets: dev asan
# timeout: 300
# processors: 2
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/map-trouble.sh"
need_tool python3

for mode in paged compat resident; do
	echo "== $mode"
	start_donor --memory r=16M
	start_line 0.2
	map_begins $mode -t 6 -d 60000 "$LINE"
	map_ends
	stop_line
	read -r _ nr <<<"$(tr '\n' ' ' <"$TMP/line")"
	echo "$nr"
	((${nr% *} >= 12)) || fail "the line was hardly cut: $nr"
	stop_donor || fail "the donor's exit status: $?"
done
