#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A TCP proxy that flips a bit of what comes back from the server, now and then.

usage: flipping-proxy.py SERVER-PORT AFTER TIMES

Prints its own port.  Of each connection bytes pass as they are until AFTER of them came from the
server; then one bit of each of the next TIMES messages of at least 64 KiB in sum is another one, in
the middle of those 64 KiB.
"""
import socket
import sys
import threading

CHUNK = 65536


def forward(source, sink, change=lambda data: None):
    try:
        while data := bytearray(source.recv(CHUNK)):
            change(data)
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in source, sink:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Flips:
    """What is left of them, for all connections."""

    def __init__(self, after, times):
        self.after, self.times, self.lock = after, times, threading.Lock()

    def of_a_connection(self):
        passed, since = 0, 0

        def change(data):
            nonlocal passed, since
            passed += len(data)
            since += len(data)
            with self.lock:
                if (passed > self.after and since > CHUNK and len(data) > CHUNK // 2 and
                        self.times > 0):
                    self.times -= 1
                    since = 0
                    data[len(data) // 2] ^= 0x10
        return change


def main():
    port, after, times = map(int, sys.argv[1:4])
    flips = Flips(after, times)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for end in client, server:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=forward, args=(client, server), daemon=True).start()
        threading.Thread(target=forward, args=(server, client, flips.of_a_connection()),
                         daemon=True).start()


main()
