# SPDX-License-Identifier: MIT
# A line's MTU is its ends': what fits goes, what does not is refused.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line

for mtu in 576 1500 9000 65535; do
	[[ $(line --mtu $mtu mtu $mtu) = went ]] ||
		fail "$mtu bytes do not go over a line of that MTU"
	[[ $(line --mtu $mtu mtu $((mtu + 1))) = "too long" ]] ||
		fail "$((mtu + 1)) bytes go over $mtu"
	line --mtu $mtu --loss 0.1% stream 4 >/dev/null || fail "TCP over an MTU of $mtu"
done
