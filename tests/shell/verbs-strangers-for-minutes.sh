# SPDX-License-Identifier: MIT
# tier: long
# timeout: 2400
# serial
# The same as verbs-strangers-cost-little.sh, for five minutes each.
WEFT_CROWDED_S=300 exec bash "${BASH_SOURCE[0]%/*}/verbs-strangers-cost-little.sh"
