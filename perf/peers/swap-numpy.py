# SPDX-License-Identifier: MIT
"""swap-numpy.py POINTS: k-means over POINTS points of 8 numbers, block by block, and a sum over
points in random order.  Prints a hash of what came out, the same each time."""

import hashlib
import sys

import numpy

NR, BLOCK, ROUNDS, CENTRES = int(sys.argv[1]), 4096, 3, 8
random = numpy.random.default_rng(1)
points = numpy.empty((NR, 8))
for at in range(0, NR, BLOCK):
    block = points[at : at + BLOCK]
    block[:] = random.random(block.shape)
centres = points[:CENTRES].copy()
for _ in range(ROUNDS):
    sums, counts = numpy.zeros_like(centres), numpy.zeros(CENTRES)
    for at in range(0, NR, BLOCK):
        block = points[at : at + BLOCK]
        distances = (centres**2).sum(axis=1) - 2 * block @ centres.T
        belongs = numpy.eye(CENTRES)[distances.argmin(axis=1)]
        sums += belongs.T @ block
        counts += belongs.sum(axis=0)
    centres = sums / counts[:, None]
total = numpy.zeros(8)
for _ in range(NR // BLOCK // 4):
    total += points[random.integers(0, NR, 256)].sum(axis=0)
print(hashlib.sha256(centres.tobytes() + total.tobytes()).hexdigest())
