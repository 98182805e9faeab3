# SPDX-License-Identifier: MIT
# The coordinator is killed at each step of what it decides, and starts again: the same commands
# come to the same end, no donor has a region without an owner, and no lease is there twice.
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
. "${BASH_SOURCE[0]%/*}/../pool-steps.sh"
need_tool jq curl


# shellcheck disable=SC2034
COORDINATORS=("$TMP/pool.sock")
# The rest has its turn in the second tier.
[[ $WEFT_TIER != first ]] || POOL_STEPS=(pool-alloc-noted pool-gone-changed)
every_step "${POOL_STEPS[@]}"
