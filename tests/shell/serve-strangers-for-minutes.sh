# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1500
# serial
# The same as serve-strangers-cost-little.sh, for five minutes each.
WEFT_CROWDED_S=300 exec bash "${BASH_SOURCE[0]%/*}/serve-strangers-cost-little.sh"
