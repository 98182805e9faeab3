#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes to a disk past the page cache, and knows what has to be there.

usage: disk-io.py write DISK NOTES BLOCKS PAGES THREADS [WRITES]
       disk-io.py check DISK NOTES BLOCKS PAGES

The disk begins with BLOCKS blocks of PAGES pages, which are written at random places, each from
pages of which no two lie side by side in memory, and each third is read into such pages and
compared.  It ends after WRITES writes, or when NOTES.stop is there, or with exit status 3 when the
disk has an error, which a test may want.  After the first write that was answered NOTES.began is
made.  NOTES keeps what each block has had: the last write that was answered, and the last that was
begun.  Either may be there, page by page; anything else is wrong (exit status 1).  check looks at
all that were written.
"""
import array
import mmap
import os
import random
import struct
import sys
import threading

PAGE = 4096


class Disk:
    def __init__(self, path, mode, notes, blocks, pages):
        self.file = os.open(path, mode | os.O_DIRECT)
        self.notes, self.blocks, self.pages = notes, blocks, pages
        self.kept, self.begun = array.array("Q"), array.array("Q")
        if os.path.exists(notes):
            with open(notes, "rb") as file:
                self.kept.fromfile(file, blocks)
                self.begun.fromfile(file, blocks)
        else:
            # Numbers of its own: what earlier notes were of is not right by chance.
            self.kept.extend([0] * blocks)
            self.begun.extend([random.randrange(1, 1 << 31)] * blocks)
        self.errors, self.writes = [], 0

    def save(self):
        with open(self.notes, "wb") as file:
            self.kept.tofile(file)
            self.begun.tofile(file)

    def room(self):
        memory = memoryview(mmap.mmap(-1, 2 * self.pages * PAGE))
        return [memory[at * PAGE : (at + 1) * PAGE] for at in range(0, 2 * self.pages, 2)]

    def whole(self, size):
        if size != self.pages * PAGE:  # a disk that goes away has no bytes
            raise OSError(f"{size} bytes in place of {self.pages * PAGE}")

    def write(self, room, block):
        self.begun[block] += 1
        for i, page in enumerate(room):
            page[:] = struct.pack("<HHL", block, i, self.begun[block]) * (PAGE // 8)
        self.whole(os.pwritev(self.file, room, block * self.pages * PAGE))
        self.kept[block] = self.begun[block]

    def compare(self, room, block):
        self.whole(os.preadv(self.file, room, block * self.pages * PAGE))
        if self.kept[block] == 0:
            return
        for i, page in enumerate(room):
            word = bytes(page[:8])
            its, number, round_ = struct.unpack("<HHL", word)
            if (
                page == word * (PAGE // 8)
                and (its, number) == (block, i)
                and self.kept[block] <= round_ <= self.begun[block]
            ):
                continue
            raise ValueError(
                f"block {block}, page {i} has {word.hex()}, and not one of the rounds "
                f"{self.kept[block]} to {self.begun[block]}"
            )

    def work(self, first, step, seed, writes):
        room, rng = self.room(), random.Random(seed)
        mine = range(first, self.blocks, step)
        try:
            for n in range(writes):
                if os.path.exists(self.notes + ".stop"):
                    return
                self.write(room, rng.choice(mine))
                self.writes += 1
                if n == 0:
                    open(self.notes + ".began", "w").close()
                if n % 3 == 0:
                    self.compare(room, rng.choice(mine))
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(error)


def main():
    verb, path, notes, blocks, pages = sys.argv[1:6]
    mode = os.O_RDONLY if verb == "check" else os.O_RDWR
    disk = Disk(path, mode, notes, int(blocks), int(pages))
    if verb == "check":
        room = disk.room()
        for block in range(disk.blocks):
            disk.compare(room, block)
        print(f"{sum(kept > 0 for kept in disk.kept)} blocks right")
        return 0
    nr = int(sys.argv[6])
    writes = int(sys.argv[7]) // nr if len(sys.argv) > 7 else 1 << 40
    threads = [
        threading.Thread(target=disk.work, args=(i, nr, random.random(), writes))
        for i in range(nr)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    disk.save()
    print(f"{disk.writes} writes; {[str(error) for error in disk.errors]}")
    if not disk.errors:
        return 0
    return 3 if all(isinstance(error, OSError) for error in disk.errors) else 1


if __name__ == "__main__":
    sys.exit(main())
