#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether an image has what checked-writer.py said that may be left after an error.

usage: checked-left.py LEFT IMAGE

Exit status 1: a block has other bytes.
"""
import json
import struct
import sys

from nbdclient import BLOCK


def main():
    with open(sys.argv[1]) as left:
        may_be = json.load(left)
    with open(sys.argv[2], "rb") as image:
        contents = image.read()
    for at in range(0, len(contents), BLOCK):
        block = contents[at:at + BLOCK]
        numbers = may_be.get(str(at // BLOCK), [0])
        if not any(block == struct.pack("<Q", n) * (BLOCK // 8) for n in numbers):
            found = struct.unpack("<Q", block[:8])[0]
            sys.exit(f"block {at // BLOCK}: {found} is there, {numbers} may be")
    print(f"{len(may_be)} blocks are what they may be")


main()
