# SPDX-License-Identifier: MIT
# tier: long
# timeout: 3600
# processors: 2
# A million operations of what move-back-and-forth.sh does; a tenth of it at a sanitizer's pace.
case ${WEFT_PRESET:-dev} in
asan | tsan) : "${WEFT_OPERATIONS:=100000}" ;;
*) : "${WEFT_OPERATIONS:=1000000}" ;;
esac
. "${BASH_SOURCE[0]%/*}/move-back-and-forth.sh"
