# SPDX-License-Identifier: MIT
# weft.Region in loops of asyncio, over TCP.
# presets: dev asan
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/python.sh"

python -m unittest -v test_asyncio
