# SPDX-License-Identifier: MIT
# The manuals are well-formed mdoc.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool mandoc

for page in "$WEFT_SRC"/fabric/man/*.[1-8]; do
	mandoc -Tlint -W warning "$page" || fail "$page"
done
