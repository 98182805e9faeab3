# SPDX-License-Identifier: MIT
"""Strangers that begin TLS with a donor and do not go on.

    tls-strangers.py HOST PORT COUNT

Each says STARTTLS and most of a ClientHello.  "there" is printed when all have; then, when the
donor has hung up on all of them, how many seconds after that the first and the last was.
"""
import select
import socket
import ssl
import struct
import sys
import time


def client_hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()


def take(sock, n):
    got = b""
    while len(got) < n:
        more = sock.recv(n - len(got))
        if not more:
            break
        got += more
    return got


def stranger(host, port):
    sock = socket.create_connection((host, port), timeout=10)
    take(sock, 18)
    sock.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 5, 0))
    take(sock, 20)
    sock.sendall(client_hello()[:-5])
    return sock


host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
waiting = {}
poll = select.poll()
for _ in range(count):
    sock = stranger(host, port)
    waiting[sock.fileno()] = (sock, time.monotonic())
    poll.register(sock, select.POLLIN)
print("there", flush=True)
ages = []
while waiting:
    found = poll.poll(60000)
    if not found:
        sys.exit("the donor hangs up on nobody")
    for fd, _ in found:
        sock, began = waiting[fd]
        try:
            over = not sock.recv(4096)
        except ConnectionError:
            over = True
        if over:
            poll.unregister(fd)
            ages.append(time.monotonic() - began)
            sock.close()
            del waiting[fd]
print(f"{min(ages):.1f} {max(ages):.1f}")
