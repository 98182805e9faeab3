#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads what checked-writer.py writes, and sees to it that no block goes back to what it was.

usage: checked-reader.py SOCKET STOP SEED RATE

A block has the number of its last write, which only goes up, in each of its words; one that is read
while it is written has the one and the other.  Reads blocks at random, RATE a second, until the
file STOP is there.  Exit status 1: an error, or an older number than before.
"""
import os
import random
import struct
import sys
import time

from nbdclient import BLOCK, Server


def main():
    path, stop, seed, rate = sys.argv[1:]
    rng = random.Random(int(seed))
    server = Server(path, 0)
    seen, reads = {}, 0
    while not os.path.exists(stop):
        block = rng.randrange(server.size // BLOCK)
        words = struct.unpack(f"<{BLOCK // 8}Q", server.read(block))
        reads += 1
        if min(words) < seen.get(block, 0):
            sys.exit(f"block {block}: {min(words)} is there, and {seen[block]} was before")
        seen[block] = min(words)
        time.sleep(1 / float(rate))
    print(f"{reads} reads, the longest request took {server.longest * 1000:.0f} ms")


main()
