# SPDX-License-Identifier: MIT
# A donor that lost its contents: each call of a program that uses libweft fails with ESTALE from
# then on, and none brings zeros or what the cache had; a donor that is gone for longer than calls
# wait is ENOTCONN, until it is there again.
# presets: dev asan tsan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/libweft.sh"

donor_for 16M
for options in "" "-c 8000000" "-c 8000000 -b"; do
	# Whoever was here before may hold it for its lease.
	# shellcheck disable=SC2086 # none, or several
	wait_for opens -d 1000 $options "weft://127.0.0.1:$port/r"
	says ok write 1 0 1000000
	says ok flush
	says ok read 1 0 1000000
	stop_donor KILL || :
	says ENOTCONN read 1 8000000 4096
	says ENOTCONN aread 1 8000000 4096
	donor
	wait_for says ok read 1 0 1000000
	# A clean end gives memory up: it has another epoch afterwards.
	stop_donor || fail "the donor's exit status: $?"
	donor
	stale() { says ESTALE read 1 0 4096; }
	wait_for stale
	for command in "read 1 8000000 4096" "write 2 0 4096" flush "aread 1 0 4096" "awrite 2 0 4096"; do
		# shellcheck disable=SC2086 # words
		says ESTALE $command
	done
	closes
done
