#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes to an NBD server, and reads, and knows what has to be there.

Blocks of 4 KiB, one request at a time, at random places.  After 50 writes the file STOP.began is
made.  Once the file STOP is there, or so many operations were done, there are 50 more writes, and
all that was written is read once more.  Prints how many writes and reads there were, and the
longest request.  Exit status 1: an error, or other bytes than were written.

With --left FILE an error is exit status 3, and the file has what may be in each block then, for
checked-left.py: what was written last before the last FLUSH (--flush N: after each N writes), or
later.
"""
import argparse
import json
import os
import random
import struct
import sys
import time

from nbdclient import BLOCK, Refused, Server


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("stop")
    parser.add_argument("seed", type=int)
    parser.add_argument("rate", type=float, nargs="?", help="requests a second at most")
    parser.add_argument("--patience", type=float, default=0,
                        help="for so many seconds a server that hangs up is asked again")
    parser.add_argument("--part", default="0/1",
                        help="I/N: has a block of each N alone, and others may have the rest")
    parser.add_argument("--operations", type=int)
    parser.add_argument("--flush", type=int)
    parser.add_argument("--left")
    return parser.parse_args()


def main():
    args = arguments()
    mine, parts = map(int, args.part.split("/"))
    rng = random.Random(args.seed * 1000 + mine)
    server = Server(args.socket, args.patience)
    there, writes, reads = {}, 0, 0
    may_be = {}  # after a loss: numbers of writes; 0: none

    def check(block):
        nonlocal reads
        reads += 1
        data = server.read(block)
        if data != there.get(block, bytes(BLOCK)):
            found = struct.unpack("<Q", data[:8])[0]
            wanted = struct.unpack("<Q", there.get(block, bytes(8))[:8])[0]
            sys.exit(f"block {block}: {found} is there, {wanted} was written, of {writes}")

    def write(block):
        data = struct.pack("<Q", writes) * (BLOCK // 8)
        may_be.setdefault(block, [0]).append(writes)
        server.write(block, data)
        there[block] = data
        if args.flush and writes % args.flush == 0:
            server.flush()
            may_be.update({b: numbers[-1:] for b, numbers in may_be.items()})

    def lost(why):
        if not args.left:
            raise why
        with open(args.left, "w") as left:
            json.dump(may_be, left)
        print(f"{writes} writes, {reads} reads: {why}")
        sys.exit(3)

    def work():
        nonlocal writes
        end = None
        while end is None or writes < end:
            is_enough = args.operations and writes + reads >= args.operations
            if end is None and (is_enough or os.path.exists(args.stop)):
                end = writes + 50
            block = rng.randrange(server.size // BLOCK // parts) * parts + mine
            if rng.random() < 0.3:
                check(block)
            else:
                writes += 1
                write(block)
                if writes == 50:
                    open(args.stop + ".began", "w").close()
            if args.rate:
                time.sleep(1 / args.rate)
        for block in sorted(there):
            check(block)

    try:
        work()
    except Refused as why:
        lost(why)
    print(f"{writes} writes, {reads} reads, "
          f"the longest request took {server.longest * 1000:.0f} ms")


main()
