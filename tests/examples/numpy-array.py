# SPDX-License-Identifier: MIT
"""An array of numpy that lies at a donor, larger than the memory that it has here.

    numpy-array.py URI NUMBERS LOCAL_BYTES      in a map, with so much memory here
    numpy-array.py - NUMBERS                    in plain memory, to compare

A heat equation in one dimension: numpy knows nothing of the map.  Prints a sum of the result.
"""

import sys

import numpy as np

import weft

BLOCK = 1 << 16  # numbers at a time, so that what numpy makes on the way stays small


def heat(room, steps):
    """Steps of u += (neighbours - 2 u) / 4 in place, from spikes."""
    room[:] = 0
    room[::1000] = 1000
    for _ in range(steps):
        left = 0.0  # what stood before the block's first number
        for begin in range(0, len(room), BLOCK):
            end = min(begin + BLOCK, len(room))
            before = np.concatenate(([left], room[begin:min(end + 1, len(room))]))
            if end == len(room):
                before = np.append(before, 0.0)
            left = before[-2]
            room[begin:end] = before[1:-1] + (before[:-2] - 2 * before[1:-1] + before[2:]) / 4


def checksum(room):
    weights = np.arange(BLOCK)
    return sum(float(np.dot(part, weights[:len(part)]) % 1e9)
               for part in (room[at:at + BLOCK] for at in range(0, len(room), BLOCK)))


def main():
    if sys.argv[1] == "-":
        room = np.zeros(int(sys.argv[2]))
        heat(room, 3)
        print(f"{checksum(room):.6f}")
        return
    uri, numbers, local_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with weft.Region(uri) as region, \
            region.map(0, numbers * 8, local_bytes=local_bytes) as m:
        room = np.frombuffer(m)
        heat(room, 3)
        print(f"{checksum(room):.6f}")
        # The array goes before the map can; then what it held is written back, or it is told.
        del room
        m.sync(flush=True)


if __name__ == "__main__":
    main()
