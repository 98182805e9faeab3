# SPDX-License-Identifier: MIT
"""A file kept the same over a socket by CRC32 of each chunk, by place: what weft push grew out of.

positional.py serve ADDRESS PORT FILE   answers one push, then ends
positional.py push ADDRESS PORT FILE

The receiver sends the checksums of all its chunks of 4 KiB as JSON, in hexadecimal; the sender
compares them with its own and sends each chunk that differs, whole, with its number.
"""
import json, mmap, socket, struct, sys, zlib

CHUNK = 4096


def checksums(m):
    view = memoryview(m)
    return ["%08x" % zlib.crc32(view[at:at + CHUNK]) for at in range(0, len(m), CHUNK)]


def mapped(path):
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), 0)


def serve(listener, path):
    conn = listener.accept()[0]
    m = mapped(path)
    stream = conn.makefile("rwb", buffering=1 << 20)
    text = json.dumps(checksums(m)).encode()
    stream.write(struct.pack(">Q", len(text)) + text)
    stream.flush()
    while (number := struct.unpack(">q", stream.read(8))[0]) >= 0:
        m[number * CHUNK:number * CHUNK + CHUNK] = stream.read(CHUNK)
    stream.write(b"k")
    stream.flush()


def push(conn, path):
    m = mapped(path)
    stream = conn.makefile("rwb", buffering=1 << 20)
    theirs = json.loads(stream.read(struct.unpack(">Q", stream.read(8))[0]))
    for number, (a, b) in enumerate(zip(checksums(m), theirs)):
        if a != b:
            stream.write(struct.pack(">q", number) + m[number * CHUNK:number * CHUNK + CHUNK])
    stream.write(struct.pack(">q", -1))
    stream.flush()
    assert stream.read(1) == b"k"


what, address, port, path = sys.argv[1:]
if what == "serve":
    listener = socket.create_server((address, int(port)))
    print("ready", flush=True)
    serve(listener, path)
else:
    push(socket.create_connection((address, int(port))), path)
