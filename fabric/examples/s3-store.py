# SPDX-License-Identifier: MIT
"""A region's contents in S3, an object for each chunk: an example for nbdkit's python plugin.

    nbdkit python s3-store.py bucket=B key=disk size=1G object-size=64K \\
        endpoint-url=https://s3.example.org access-key=A secret-key=S
    weft serve --backend disk=nbd://127.0.0.1/ --backend-stable

It is nbdkit's own plugin for S3, with its parameters.  But that answers a request whose connection
timed out or was closed as if it had succeeded (seen in nbdkit 1.32), with whatever was in the
buffer.  Here it is an error.
"""
import glob
import os

# Where Debian and Fedora have it.
places = ["/usr/lib/*/nbdkit/plugins/nbdkit-S3-plugin", "/usr/lib*/nbdkit/plugins/nbdkit-S3-plugin"]
found = [path for place in places for path in glob.glob(place)]
if not found:
    raise RuntimeError("nbdkit's plugin for S3 is not installed: nbdkit-plugin-python")
with os.fdopen(os.open(found[0], os.O_RDONLY)) as f:
    exec(compile(f.read(), found[0], "exec"))


def pread(server, buf, offset, flags):
    server.pread(buf, offset, flags)


def pwrite(server, buf, offset, flags):
    server.pwrite(buf, offset, flags)


def trim(server, size, offset, flags):
    server.trim(size, offset, flags)


def zero(server, size, offset, flags):
    server.zero(size, offset, flags)
