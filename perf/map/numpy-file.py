# SPDX-License-Identifier: MIT
"""The example's numpy, over a file that is mapped: what the file costs in the map's place.

    numpy-file.py EXAMPLE FILE NUMBERS
"""

import importlib.util
import sys

import numpy as np


def main():
    spec = importlib.util.spec_from_file_location("example", sys.argv[1])
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    room = np.memmap(sys.argv[2], dtype="f8", mode="r+", shape=int(sys.argv[3]))
    example.heat(room, 3)
    print(f"{example.checksum(room):.6f}")
    room.flush()


main()
