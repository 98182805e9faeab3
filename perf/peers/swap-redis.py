# SPDX-License-Identifier: MIT
"""swap-redis.py SOCKET KEYS: fills a Redis server with KEYS values of 4096 bytes that follow from
their keys and do not compress, asks for all of them in order and as many again at random, and
compares each.  Prints that all are right, or ends with 1."""

import hashlib
import random
import socket
import sys

BATCH = 16
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
replies = sock.makefile("rb")
keys = range(int(sys.argv[2]))


def value(key):
    return hashlib.shake_128(b"%d" % key).digest(4096)


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def batches(some):
    for at in range(0, len(some), BATCH):
        yield some[at : at + BATCH]


def compare(some):
    for batch in batches(some):
        sock.sendall(b"".join(command(b"GET", b"key:%d" % key) for key in batch))
        for key in batch:
            if replies.readline() != b"$4096\r\n" or replies.read(4098)[:-2] != value(key):
                sys.exit("key %d has another value" % key)


for batch in batches(keys):
    sock.sendall(b"".join(command(b"SET", b"key:%d" % key, value(key)) for key in batch))
    for key in batch:
        if replies.readline() != b"+OK\r\n":
            sys.exit("key %d is not kept" % key)
compare(keys)
compare(random.Random(1).choices(keys, k=len(keys)))
print("all %d keys right" % len(keys))
