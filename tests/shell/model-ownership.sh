# SPDX-License-Identifier: MIT
# The rules by which a borrower may go on with a region's contents, as a model: they hold, those
# before them did not, and none of them can be spared.
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool spin gcc

long=()
[[ $WEFT_TIER = first ]] || long=(--long)
"$WEFT_SRC/tests/model/check" "${long[@]}"
