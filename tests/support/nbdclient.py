# SPDX-License-Identifier: MIT
"""A plain NBD client on a Unix socket, for scripts beside this file: one request at a time, blocks
of 4 KiB."""
import socket
import struct
import time

BLOCK = 4096
FLUSH = 3


class Refused(SystemExit):
    """The server answered with an error: ends the program, unless that is expected."""


class Server:
    """A server that hangs up, or is not there, is connected to again for `patience` seconds, and
    asked the same again."""

    def __init__(self, path, patience):
        self.path, self.patience = path, patience
        self.longest = 0.0
        self.connect()

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(self.path)
        self.receive(18)
        self.socket.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
        self.size = struct.unpack(">QH", self.receive(10))[0]

    def receive(self, n):
        data = bytearray()
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise ConnectionError("the server hung up")
            data += more
        return bytes(data)

    def exchange(self, kind, block, payload):
        off, size = (0, 0) if kind == FLUSH else (block * BLOCK, BLOCK)
        head = struct.pack(">IHHQQI", 0x25609513, 0, kind, block, off, size)
        self.socket.sendall(head + payload)
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert (magic, cookie) == (0x67446698, block)
        if error:
            raise Refused(f"block {block}: error {error}")
        return self.receive(BLOCK) if kind == 0 else b""

    def ask(self, kind, block, payload=b""):
        start = time.monotonic()
        is_connected = True
        while True:
            try:
                if not is_connected:
                    self.connect()
                    is_connected = True
                data = self.exchange(kind, block, payload)
                break
            except (ConnectionError, FileNotFoundError):
                if time.monotonic() > start + self.patience:
                    raise
                is_connected = False
                self.socket.close()
                time.sleep(0.02)
        self.longest = max(self.longest, time.monotonic() - start)
        return data

    def read(self, block):
        return self.ask(0, block)

    def write(self, block, data):
        self.ask(1, block, data)

    def flush(self):
        self.ask(FLUSH, 0)
