# SPDX-License-Identifier: MIT
# A program with a map is stopped for longer than its lease, and another writes meanwhile: what the
# map has is SIGBUS from then on, in each mode; what it had not written back can be rescued and is
# never written; a reset goes on with what the other wrote.  A donor that is killed and comes back
# costs nothing.
# presets: dev asan
# timeout: 300
# processors: 1
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/libweft.sh"
need_tool nbdcopy

cd "$TMP"
donor_for 4M
random_file other 4M
is_free() { nbdcopy other "nbd://127.0.0.1:$port/r" 2>"$TMP/copy"; }
is_lost() { says SIGBUS mread 1 "$1" 1000; } # OFFSET
for mode in paged compat resident; do
	echo "== $mode"
	if ! wait_for opens -d 10000 -m $mode "weft://127.0.0.1:$port/r"; then
		grep -q 'userfaultfd' "$TMP/libweft-io" && skip "$(cat "$TMP/libweft-io")"
		fail "$(cat "$TMP/libweft-io")"
	fi
	says ok mwrite 1 0 3000000
	says ok msync
	stop_donor KILL || :
	donor
	says ok mread 1 0 3000000
	says ok mwrite 1 0 3000000
	says ok msync
	says ok mwrite 2 100000 50000
	kill -STOP "$LIBWEFT_PID"
	wait_for -t 30 is_free
	kill -CONT "$LIBWEFT_PID"
	# What it has is taken away page by page.
	for off in 0 100000 2000000 3500000; do
		wait_for -t 60 is_lost $off
		says SIGBUS mwrite 1 $off 1000
	done
	says ESTALE msync
	says ok rescue 2 100000 50000
	says ok reset
	says differs mread 1 0 1000
	closes
	wait_for nbdcopy "nbd://127.0.0.1:$port/r" back
	cmp other back || fail "somebody has written to what the other wrote"
	rm -f back
done
