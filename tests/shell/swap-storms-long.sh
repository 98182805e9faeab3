# SPDX-License-Identifier: MIT
# tier: soak
# timeout: 3300
# processors: 2
# swap-storms, ten minutes of each.
export WEFT_STORM_SECONDS=${WEFT_STORM_SECONDS:-600}
. "${BASH_SOURCE[0]%/*}/swap-storms.sh"
