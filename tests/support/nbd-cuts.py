# SPDX-License-Identifier: MIT
"""nbd-cuts.py SOCKET: an NBD server of 64 MiB.  Of its first connection it answers the second READ,
then the first, and ends the connection.  Later ones get all their answers, as of a server that was
started again."""
import socket
import struct
import sys

SIZE = 64 << 20
INFO, EXPORT, ACK = 3, 0, 1
MAGIC, OPTION, REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST, SIMPLE = 0x25609513, 0x67446698


def get(peer, size):
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def option_reply(option, kind, data=b""):
    return struct.pack(">QIII", REPLY, option, kind, len(data)) + data


def shake_hands(peer):
    peer.sendall(struct.pack(">QQH", MAGIC, OPTION, 3))
    get(peer, 4)
    while True:
        _, option, size = struct.unpack(">QII", get(peer, 16))
        get(peer, size)
        if option in (6, 7):  # INFO, GO
            facts = struct.pack(">HQH", EXPORT, SIZE, 1 | 4)
            peer.sendall(option_reply(option, INFO, facts) + option_reply(option, ACK))
            if option == 7:
                return
        else:
            peer.sendall(option_reply(option, 0x80000001))


def request(peer):
    magic, _, kind, cookie, _, size = struct.unpack(">IHHQQI", get(peer, 28))
    assert magic == REQUEST
    if kind == 2:
        raise ConnectionError
    return cookie, size


def answer(cookie, size):
    return struct.pack(">IIQ", SIMPLE, 0, cookie) + b"x" * size


def serve(peer, cuts):
    shake_hands(peer)
    if cuts:
        first, second = request(peer), request(peer)
        peer.sendall(answer(*second) + answer(*first))
        return
    while True:
        peer.sendall(answer(*request(peer)))


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(8)
cuts = True
while True:
    peer, _ = listener.accept()
    with peer:
        try:
            serve(peer, cuts)
        except ConnectionError:
            pass
    cuts = False
