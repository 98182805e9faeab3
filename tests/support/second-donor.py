# SPDX-License-Identifier: MIT
"""A donor for weft's borrowers, written from weft-protocol(7) and the NBD protocol alone.

Nothing of weft's code is used.  It is a test of the manual (tests/shell/protocol-second-donor.sh),
like second-borrower.py.  It lends one region of memory, m, over TCP; striped devices, files and
restarts are left out.

    second-donor.py SIZE LEASE_MS [EPOCH MEMORY SAYS]
        prints the port, then a line for each grant, lapse and end

With three arguments more the region may move, as a test says: it has that epoch, its bytes are in
the file MEMORY, which another donor may have too, and the file SAYS has nothing, or one of
"moving", "frozen" and "moved", and a place.  SIGUSR1 ends all sessions.  Who is not known here was
known to the other donor.
"""

import mmap
import os
import re
import signal
import socket
import struct
import sys
import threading
import time

SIZE, LEASE_MS = int(sys.argv[1]), int(sys.argv[2])
NAME = "m"
EPOCH, MEMORY, SAYS = sys.argv[3:6] if len(sys.argv) > 3 else (os.urandom(8).hex(), None, None)
REP_ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_UNKNOWN = 0x80000001, 0x80000002, 0x80000003, 0x80000006
EPERM, EINVAL, ENOSPC, ESHUTDOWN = 1, 22, 28, 108
MAX_PAYLOAD, FENCE_S = 32 << 20, 10

memory = bytearray(SIZE)
if MEMORY:
    with open(MEMORY, "r+b") as file:
        memory = mmap.mmap(file.fileno(), SIZE)
lock = threading.Condition()
attachments = {}  # by id; None: all stock clients


def move():
    """What is said of a move, and the place."""
    if not SAYS:
        return "", ""
    with open(SAYS, encoding="ascii") as says:
        what, _, place = says.read().strip().partition(" ")
    return what, place


class Refusal(Exception):
    def __init__(self, error, text):
        super().__init__(text)
        self.error = error


def policy(word, text):
    return Refusal(ERR_POLICY, f"{word}: {text}")


FORMS = {
    "id": "[0-9a-f]{32}",
    "gen": "[1-9][0-9]*",
    "mode": "[rsw]",
    "name": "[A-Za-z0-9._-]{1,63}",
    "epoch": "[0-9a-f]{16}",
}
FORMS_1 = {
    "expect": "[0-9a-f]{16}",
    "granted": "[1-9][0-9]*",
    "wrote": "1",
    "stripe": "[0-9]+/[0-9]+:[0-9]+",
    "renew": "1",
    "follows": "1",
}


class Hello:
    """A text of version 0 or 1."""

    def __init__(self, text):
        malformed = Refusal(ERR_INVALID, "malformed weft:session")
        pairs = [field.partition("=") for field in text[len("weft:session:"):].split(",")]
        self.version0 = pairs[0][0] != "v"
        if not self.version0 and not re.fullmatch("[1-9][0-9]*", pairs.pop(0)[2]):
            raise malformed
        forms = FORMS if self.version0 else FORMS | FORMS_1
        said = {}
        for key, equals, value in pairs:
            if key in forms:
                if not equals or key in said or not re.fullmatch(forms[key], value):
                    raise malformed
                said[key] = value
            elif self.version0 or not equals or not re.fullmatch("!?[A-Za-z0-9._-]+", key):
                raise malformed
            elif key[0] == "!":
                raise policy("EPROTONOSUPPORT", f"'{key[1:]}' is not known here")
        if not {"id", "gen", "mode", "name"} <= set(said) or {"epoch", "expect"} <= set(said):
            raise malformed
        self.id, self.gen, self.mode = said["id"], int(said["gen"]), said["mode"]
        self.name, self.follows = said["name"], "follows" in said
        self.epoch, self.expect = said.get("epoch"), said.get("expect")

    def welcome(self):
        version = "" if self.version0 else "v=1,"
        what, place = move()
        moving = f",moving={place}" if what == "moving" and self.follows else ""
        return f"weft:grant:{version}epoch={EPOCH},lease={LEASE_MS},offers=tcp{moving}"


class Attachment:
    """What is kept of one.  written: a writer was granted since it held the region."""

    def __init__(self):
        self.gen, self.mode, self.sessions, self.seen = 0, "w", set(), 0
        self.held = self.lapsed = self.written = False


def exclude(a, b):
    return "s" not in (a, b) and "w" in (a, b)


def grant(hello, session):
    """In the order of the manual."""
    key, gen, mode = (hello.id, hello.gen, hello.mode) if hello else (None, 0, "w")
    with lock:
        known = attachments.get(key)
        what, place = move()
        if what in ("frozen", "moved"):
            raise policy("MOVING" if what == "frozen" else "MOVED", f"{place} is to be asked")
        if hello and EPOCH != (hello.epoch or hello.expect or EPOCH):
            raise policy("ESTALE", "other contents")
        if known and gen < known.gen:
            word = "SUPERSEDED" if gen >> 32 < known.gen >> 32 else "OVER"
            raise policy(word, "a higher generation was granted")
        forgotten = known.written if known else not SAYS
        if hello and hello.epoch and mode != "s" and forgotten:
            raise policy("ESTALE", "another could write")
        if known and hello and gen == known.gen:
            if known.lapsed:
                raise policy("OVER", "the lease is over")
            if mode != known.mode:
                raise policy("EINVAL", "another mode")
        for other_key, other in attachments.items():
            if other_key != key and other.held and exclude(mode, other.mode):
                raise policy("EBUSY", "somebody else has it")
        own = attachments.setdefault(key, Attachment())
        if gen > own.gen:
            own.lapsed = own.written = False
        own.gen, own.mode, own.held, own.seen = gen, mode, True, time.monotonic()
        fence(own, lambda s: s.gen < gen)
        if mode == "w":
            for other in attachments.values():
                other.written |= other is not own
        own.sessions.add(session)
        name = hello.name if hello else "-"
        print("granted", name, f"{gen >> 32}.{gen & 0xffffffff}", mode, flush=True)
        return own


def fence(attachment, which):
    """Under the lock: nothing of those sessions reaches the memory any more."""
    until = time.monotonic() + FENCE_S
    while True:
        old = [s for s in attachment.sessions if which(s)]
        for s in old:
            s.shut()
        if not old:
            return
        if not lock.wait(until - time.monotonic()):
            raise policy("EBUSY", "an older session does not stop")


def release(attachment, session, clean):
    with lock:
        attachment.sessions.discard(session)
        stock = attachments.get(None) is attachment
        if not attachment.sessions and (stock or (clean and session.gen == attachment.gen)):
            attachment.held = False
        print("ended", "clean" if clean else "not clean", flush=True)
        lock.notify_all()


def leases():
    period_s = LEASE_MS / 8000
    while True:
        due = time.monotonic() + period_s
        time.sleep(period_s)
        # Where this process itself was held up, what has come meanwhile is read first.
        if time.monotonic() - due > period_s:
            continue
        with lock:
            for key, a in attachments.items():
                if key and a.held and time.monotonic() - a.seen > LEASE_MS / 1000:
                    print("lapsed", flush=True)
                    a.lapsed = True
                    fence(a, lambda s: True)
                    a.held = False


class Session(threading.Thread):
    def __init__(self, sock):
        super().__init__(daemon=True)
        self.socket, self.structured, self.gen, self.grant = sock, False, 0, None
        self.hello = self.hello_for = None

    def shut(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def receive(self, n):
        data = bytearray()
        while len(data) < n:
            more = self.socket.recv(min(n - len(data), 1 << 20))
            if not more:
                raise EOFError
            data += more
            if self.grant:
                self.grant.seen = time.monotonic()
        return bytes(data)

    def run(self):
        clean = False
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.negotiate():
                clean = self.serve()
        except (EOFError, OSError):
            pass
        finally:
            if self.grant:
                release(self.grant, self, clean)
            self.socket.close()

    def reply(self, option, kind, data=b""):
        self.socket.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

    def negotiate(self):
        self.socket.sendall(struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3))
        self.receive(4)
        while True:
            _, option, n = struct.unpack(">QII", self.receive(16))
            data = self.receive(n)
            try:
                if option == 2:
                    self.reply(option, REP_ACK)
                    return False
                for kind, answer in self.answer(option, data):
                    self.reply(option, kind, answer)
                self.reply(option, REP_ACK)
            except Refusal as e:
                self.reply(option, e.error, str(e).encode())
                continue
            if option == 7:
                return True

    def answer(self, option, data):
        if option == 3:
            name = struct.pack(">I", len(NAME)) + NAME.encode()
            return [(REP_SERVER, name + b"memory of another donor")]
        if option == 8:
            self.structured = True
            return []
        if option not in (6, 7, 9, 10):
            raise Refusal(ERR_UNSUP, "unknown option")
        n = struct.unpack(">I", data[:4])[0]
        name, rest = data[4:4 + n].decode(), data[4 + n:]
        if option in (9, 10):
            return self.contexts(name, rest, option == 10)
        if option == 7 and name == "weft:session" and self.hello:
            name = self.hello_for
        if name not in (NAME, ""):
            raise Refusal(ERR_UNKNOWN, "no such region")
        if option == 7:
            hello = self.hello if self.hello_for == name else None
            self.gen = hello.gen if hello else 0
            self.grant = grant(hello, self)
            self.writes = not hello or hello.mode == "w"
        writes = option == 6 or self.writes
        flags = 1 | 4 | 256 | (8 | 64 if writes else 2) | (128 if self.structured else 0)
        export = struct.pack(">HQH", 0, SIZE, flags)
        blocks = struct.pack(">HIII", 3, 1, 4096, MAX_PAYLOAD)
        return [(REP_INFO, export), (REP_INFO, blocks)]

    def contexts(self, name, rest, select):
        if select:
            self.hello = None
        if not self.structured:
            raise Refusal(ERR_INVALID, "structured replies first")
        if name not in (NAME, ""):
            raise Refusal(ERR_UNKNOWN, "no such region")
        answers, hellos, at = [], [], 4
        for _ in range(struct.unpack(">I", rest[:4])[0]):
            n = struct.unpack(">I", rest[at:at + 4])[0]
            query = rest[at + 4:at + 4 + n].decode()
            at += 4 + n
            if query.startswith("weft:session:"):
                hellos.append(Hello(query))
                context = struct.pack(">I", int(select)) + hellos[-1].welcome().encode()
                answers.append((REP_META, context))
        if len(hellos) > 1:
            raise Refusal(ERR_INVALID, "more than one hello")
        if select and hellos:
            self.hello, self.hello_for = hellos[0], name
        return answers

    def serve(self):
        """True: the peer said goodbye."""
        while True:
            magic, flags, kind, cookie, off, n = struct.unpack(">IHHQQI", self.receive(28))
            if magic != 0x25609513:
                return False
            payload = self.receive(n) if kind == 1 else b""
            if kind == 2:
                return True
            error, data = self.carry_out(kind, off, n, payload)
            if error and self.structured:
                head = struct.pack(">IHHQIIH", 0x668E33EF, 1, 0x8001, cookie, 6, error, 0)
            elif data is not None and self.structured:
                head = struct.pack(">IHHQIQ", 0x668E33EF, 1, 1, cookie, 8 + n, off)
            else:
                head = struct.pack(">IIQ", 0x67446698, error, cookie)
            self.socket.sendall(head + (data or b""))

    def carry_out(self, kind, off, n, payload):
        if kind == 3:
            return 0, None
        if kind not in (0, 1, 6) or n == 0 or (kind < 2 and n > MAX_PAYLOAD):
            return EINVAL, None
        if kind and not self.writes:
            return EPERM, None
        if off + n > SIZE:
            return ENOSPC if kind else EINVAL, None
        if kind == 0:
            return 0, memory[off:off + n]
        memory[off:off + n] = payload if kind == 1 else bytes(n)
        return 0, None


def end_sessions(*_):
    for attachment in list(attachments.values()):
        for session in list(attachment.sessions):
            session.shut()


signal.signal(signal.SIGUSR1, end_sessions)
threading.Thread(target=leases, daemon=True).start()
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(listener.getsockname()[1], flush=True)
while True:
    Session(listener.accept()[0]).start()
