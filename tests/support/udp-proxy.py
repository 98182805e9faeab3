# SPDX-License-Identifier: MIT
"""A bad network for UDP: udp-proxy.py LISTEN_PORT TARGET_PORT [NAME=VALUE]...

Forwards between whoever sends to LISTEN_PORT of 127.0.0.1 and TARGET_PORT there.  The target sees
the address "from" (127.0.0.1) and a port that changes each "rebind" seconds, or with SIGUSR1, as
behind a NAT; SIGUSR2 changes to the address "then".  "loss", "twice" and "late" are shares of the
datagrams that are lost, come twice, or come behind later ones; "delay" is one way, in ms; larger
ones than "most" bytes are lost.  "seed" is of the chance.
"""

import heapq
import random
import select
import signal
import socket
import sys
import time

wanted = dict(word.split("=", 1) for word in sys.argv[3:])
loss, twice, late = (float(wanted.pop(name, 0)) for name in ("loss", "twice", "late"))
delay = float(wanted.pop("delay", 0)) / 1000
most = int(wanted.pop("most", 65535))
rebind = float(wanted.pop("rebind", 0))
address, then = wanted.pop("from", "127.0.0.1"), wanted.pop("then", "127.0.0.2")
chance = random.Random(int(wanted.pop("seed", 1)))
assert not wanted, wanted

near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
near.bind(("127.0.0.1", int(sys.argv[1])))
target = ("127.0.0.1", int(sys.argv[2]))
far = {}  # by the address of who sends
moved = False


def fresh():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((address, 0))
    return sock


def change(signum, frame):
    global moved, address
    moved = True
    if signum == signal.SIGUSR2:
        address, globals()["then"] = then, address


signal.signal(signal.SIGUSR1, change)
signal.signal(signal.SIGUSR2, change)
queue, nr, changed = [], 0, time.monotonic()


def pass_on(data, way):
    """way: None, who it came from: to the target; otherwise back to who."""
    global nr
    if len(data) > most or chance.random() < loss:
        return
    for _ in range(2 if chance.random() < twice else 1):
        due = time.monotonic() + delay
        if chance.random() < late:
            due += delay / 4 + 0.003
        nr += 1
        heapq.heappush(queue, (due, nr, data, way))


while True:
    now = time.monotonic()
    if moved or (rebind and now - changed > rebind):
        moved, changed = False, now
        for who, sock in far.items():
            sock.close()
            far[who] = fresh()
    while queue and queue[0][0] <= now:
        _, _, data, (to_target, who) = heapq.heappop(queue)
        if to_target:
            far[who].sendto(data, target)
        else:
            near.sendto(data, who)
    wait = max(queue[0][0] - time.monotonic(), 0) if queue else 0.05
    ready, _, _ = select.select([near, *far.values()], [], [], wait)
    for sock in ready:
        for _ in range(32):
            try:
                data, who = sock.recvfrom(65536, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionRefusedError):
                break
            if sock is near:
                if who not in far:
                    far[who] = fresh()
                pass_on(data, (True, who))
            else:
                owner = next((who for who, one in far.items() if one is sock), None)
                if owner:
                    pass_on(data, (False, owner))
