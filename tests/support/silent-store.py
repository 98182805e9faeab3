# SPDX-License-Identifier: MIT
"""A plugin for nbdkit: a file of whole MiB that is written by 64 KiB at most.  While `hold` is in
the directory of the file, a WRITE at its beginning fails, and each other WRITE waits until `go` is
there before it is carried out.  A line for each connection is in `connections`, for each WRITE that
waits in `held`, and for each that has waited in `late`."""
import errno
import os
import time

import nbdkit

API_VERSION = 2
path = None


def thread_model():
    return nbdkit.THREAD_MODEL_PARALLEL


def config(key, value):
    global path
    if key != "file":
        raise RuntimeError("unknown parameter " + key)
    path = value


def beside(name):
    return os.path.join(os.path.dirname(path), name)


def note(name):
    fd = os.open(beside(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, b"1\n")
    os.close(fd)


def open(_):
    note("connections")
    return os.open(path, os.O_RDWR)


def close(fd):
    os.close(fd)


def get_size(fd):
    return os.fstat(fd).st_size


def block_size(_):
    return 1, 4096, 64 << 10


def pread(fd, buf, off, _):
    os.preadv(fd, [buf], off)


def pwrite(fd, buf, off, _):
    held = os.path.exists(beside("hold"))
    if held and off == 0:
        nbdkit.set_error(errno.EIO)
        raise RuntimeError("refused")
    if held:
        note("held")
    while held and not os.path.exists(beside("go")):
        time.sleep(0.05)
    os.pwrite(fd, buf, off)
    if held:
        note("late")


def flush(fd, _):
    os.fdatasync(fd)
