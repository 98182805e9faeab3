# SPDX-License-Identifier: MIT
# weft.Region, over TCP: what it reads and writes, refuses, and leaves behind; interrupts.
# presets: dev asan
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/python.sh"

python -m unittest -v test_region
