#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes to an NBD server, and reads, and knows what has to be there.

usage: checked-writer.py SOCKET STOP SEED [RATE]

Blocks of 4 KiB, one request at a time, at random places, RATE a second at most.  After 50 writes
the file STOP.began is made.  Once the file STOP is there, there are 50 more, and all that was
written is read once more.  Prints how many writes there were, and the longest request.  Exit
status 1: an error, or other bytes than were written.
"""
import os
import random
import socket
import struct
import sys
import time

BLOCK = 4096


class Server:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.receive(18)
        self.socket.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
        self.size = struct.unpack(">QH", self.receive(10))[0]
        self.longest = 0.0

    def receive(self, n):
        data = bytearray()
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise EOFError("the server hung up")
            data += more
        return bytes(data)

    def ask(self, kind, block, payload=b""):
        start = time.monotonic()
        head = struct.pack(">IHHQQI", 0x25609513, 0, kind, block, block * BLOCK, BLOCK)
        self.socket.sendall(head + payload)
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert (magic, cookie) == (0x67446698, block)
        if error:
            raise OSError(f"block {block}: error {error}")
        data = self.receive(BLOCK) if kind == 0 else b""
        self.longest = max(self.longest, time.monotonic() - start)
        return data


def main():
    path, stop, seed = sys.argv[1:4]
    pause = 1 / float(sys.argv[4]) if len(sys.argv) > 4 else 0
    rng = random.Random(int(seed))
    server = Server(path)
    there, writes = {}, 0

    def check(block):
        data = server.ask(0, block)
        if data != there.get(block, bytes(BLOCK)):
            found = struct.unpack("<Q", data[:8])[0]
            wanted = struct.unpack("<Q", there.get(block, bytes(8))[:8])[0]
            sys.exit(f"block {block}: {found} is there, {wanted} was written, of {writes}")

    end = None
    while end is None or writes < end:
        if end is None and os.path.exists(stop):
            end = writes + 50
        block = rng.randrange(server.size // BLOCK)
        if rng.random() < 0.3:
            check(block)
        else:
            writes += 1
            data = struct.pack("<Q", writes) * (BLOCK // 8)
            server.ask(1, block, data)
            there[block] = data
            if writes == 50:
                open(stop + ".began", "w").close()
        if pause:
            time.sleep(pause)
    for block in sorted(there):
        check(block)
    print(f"{writes} writes, the longest request took {server.longest * 1000:.0f} ms")


main()
