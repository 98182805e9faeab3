# SPDX-License-Identifier: MIT
"""A line between borrowers and a donor, on 127.0.0.1, that can be cut.

    relay.py PORT DONOR-PORT [SECONDS]

A connection is reset, at both ends, SECONDS after it was accepted.  SIGSTOP and SIGCONT are a line
that is silent for a while.  On SIGTERM it says how many connections there were.
"""

import asyncio
import signal
import socket
import struct
import sys

nr_connections = 0


def reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def pump(reader, writer):
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()


async def relay(reader, writer, donor, seconds):
    global nr_connections
    nr_connections += 1
    other = None
    try:
        to_donor, other = await asyncio.open_connection("127.0.0.1", donor)
        ways = [asyncio.ensure_future(pump(reader, other)),
                asyncio.ensure_future(pump(to_donor, writer))]
        await asyncio.wait(ways, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    except OSError:
        pass # no donor, for the moment
    for end in (writer, other):
        if end is not None:
            reset(end)


async def main(port, donor, seconds=None):
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    seconds = float(seconds) if seconds else None
    await asyncio.start_server(lambda r, w: relay(r, w, donor, seconds), "127.0.0.1", port)
    print("ready", flush=True)
    await end.wait()
    print(nr_connections, "connections", flush=True)


asyncio.run(main(*sys.argv[1:]))
