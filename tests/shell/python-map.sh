# SPDX-License-Identifier: MIT
# weft.Map, over TCP: a region as memory of a Python program, also once its donor is lost.
# presets: dev asan
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/python.sh"

python -m unittest -v test_map
