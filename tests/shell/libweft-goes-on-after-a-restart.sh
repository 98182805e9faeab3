# SPDX-License-Identifier: MIT
# A donor that dies and comes back with the same contents: calls of a program that uses libweft wait
# and go on, blocking and asynchronous ones, without a cache, with one, and over several donors; and
# what was written is there.
# presets: dev asan tsan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/libweft.sh"

donor_for 48M
for options in "" "-c 8000000" "-c 8000000 -b"; do
	# shellcheck disable=SC2086 # none, or several
	wait_for opens -d 60000 $options "weft://127.0.0.1:$port/r"
	[[ $(ask transport) = tcp ]] || fail "it goes over '$(ask transport)'"
	# Over 32 MiB at once.
	says ok write 1 12345 40000000
	says ok read 1 12345 40000000
	for round in 2 3 4; do
		stop_donor KILL || :
		# These wait until it is there again.
		begin awrite "$round" 4096 3000000
		donor
		ends ok
		says ok read "$round" 4096 3000000
		says ok flush
		stop_donor KILL || :
		begin read "$round" 4096 3000000
		donor
		ends ok
		says ok aread "$round" 4096 3000000
		says ok read 1 4000000 1000
	done
	closes
	# As another program reads it, once the donor knows that this one has gone: it may have had
	# no connection in the end, for its cache.
	wait_for opens -d 60000 "weft://127.0.0.1:$port/r"
	says ok read 4 4096 3000000
	closes
done
