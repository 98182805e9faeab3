# SPDX-License-Identifier: MIT
# serial
# A line without a rate carries TCP at a good part of the loopback's speed: it forwards what the
# kernel hands over, as it is.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line

for try in 1 2 3; do
	lo=$(line lo 256)
	over=$(line stream 256)
	delayed=$(line --delay 1ms stream 256)
	echo "Mbit/s: loopback $((lo / 1000000)), line $((over / 1000000)), of 1 ms $((delayed / 1000000))"
	((over * 10 < lo)) || exit 0
done
fail "less than a tenth of the loopback's speed, $try times"
