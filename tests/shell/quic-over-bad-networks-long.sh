# SPDX-License-Identifier: MIT
# The same on networks that are 25 and 100 ms wide and lose a part of each share.
# tier: long
# timeout: 900
# shellcheck disable=SC2034
BAD=(most=1400)
for share in 0.001 0.01 0.05; do
	BAD+=("loss=$share delay=12" "loss=$share delay=50 twice=0.01 late=0.02")
done
. "${BASH_SOURCE[0]%/*}/quic-over-bad-networks.sh"
