# SPDX-License-Identifier: MIT
"""A region's contents in Redis, a key for each chunk: an example for nbdkit's python plugin.

    nbdkit python redis-store.py size=1G url=redis://127.0.0.1 prefix=disk
    weft serve --backend disk=nbd://127.0.0.1/ --backend-stable

The key of a chunk is the prefix, a hyphen and the chunk's offset.  A key that is missing reads as
zeros, and so does what a value is too short for.  A server that fails is an error of that request.
A flush says that Redis is there; what it has on disk by then is what its own settings say
(appendonly yes, appendfsync always).
"""
import errno

import nbdkit
import redis

API_VERSION = 2
CHUNK = 64 << 10

settings = {"url": "redis://127.0.0.1", "prefix": "weft"}
size = 0


def config(key, value):
    global size
    if key == "size":
        size = nbdkit.parse_size(value)
    elif key in settings:
        settings[key] = value
    else:
        raise RuntimeError(f"unknown setting {key}: there are size, url and prefix")


def config_complete():
    if size <= 0:
        raise RuntimeError("which size? Say size=1G")


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_REQUESTS


def open(readonly):
    return redis.Redis.from_url(settings["url"], socket_timeout=10)


def get_size(h):
    return size


def can_flush(h):
    return True


def can_zero(h):
    return True


def pieces(offset, count):
    """The chunks of a range: the key, where the piece is in the chunk, and how long it is."""
    while count > 0:
        at = offset % CHUNK
        n = min(CHUNK - at, count)
        yield f"{settings['prefix']}-{offset - at}", at, n
        offset += n
        count -= n


def ask(fn, *args):
    try:
        return fn(*args)
    except redis.RedisError as e:
        nbdkit.set_error(errno.EIO)
        raise RuntimeError(f"redis: {e}")


def pread(h, buf, offset, flags):
    parts = list(pieces(offset, len(buf)))
    done = 0
    for (key, at, n), value in zip(parts, ask(h.mget, [key for key, _, _ in parts])):
        part = (value or b"")[at:at + n]
        buf[done:done + n] = part + bytes(n - len(part))
        done += n


def pwrite(h, buf, offset, flags):
    pipe, done = h.pipeline(), 0
    for key, at, n in pieces(offset, len(buf)):
        pipe.setrange(key, at, bytes(buf[done:done + n]))
        done += n
    ask(pipe.execute)


def zero(h, count, offset, flags):
    pipe = h.pipeline()
    for key, at, n in pieces(offset, count):
        if n == CHUNK:
            pipe.delete(key)
        else:
            pipe.setrange(key, at, bytes(n))
    ask(pipe.execute)


def flush(h, flags):
    ask(h.ping)
