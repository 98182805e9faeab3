# SPDX-License-Identifier: MIT
"""A borrower of weft's, written from weft-protocol(7) and the NBD protocol alone.

Nothing of weft's code is used.  It tests the manual (tests/shell/protocol-second-borrower.sh):
what it cannot do after reading that, the manual lacks.  Each step checks what the manual says,
against a donor that listens on 127.0.0.1.

    second-borrower.py PORT memory
        of a donor with --memory r=64M --memory s=8M --memory t=8M --lease 2
    second-borrower.py PORT file STATE
        of one with --file f=PATH: keeps in STATE what it remembers
    second-borrower.py PORT again STATE
        of that one, started anew
    second-borrower.py PORT read-only
        of one with --file f=PATH --read-only
"""

import json
import os
import socket
import struct
import sys
import time

# The NBD protocol.
NBD_MAGIC, IHAVEOPT, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 6, 7, 8, 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR_POLICY, ERR_INVALID, ERR_UNKNOWN = 0x80000002, 0x80000003, 0x80000006
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, FAST_ZERO = 1, 2, 16
READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_ZEROES, SEND_DF = 2, 4, 8, 32, 64, 128
MULTI_CONN, SEND_CACHE, SEND_FAST_ZERO = 256, 1024, 2048
EPERM, EINVAL, ESHUTDOWN = 1, 22, 108
MIB = 1 << 20


class Refused(Exception):
    """An option was answered with an error.  word: what a policy's text begins with."""

    def __init__(self, error, text):
        super().__init__(f"{error:#x}: {text}")
        self.error, self.text = error, text
        self.word = text.split(": ")[0] if error == ERR_POLICY else None


class Failed(Exception):
    """A request was answered with an error."""

    def __init__(self, error):
        super().__init__(f"error {error}")
        self.error = error


def packed(option, data=b""):
    return struct.pack(">QII", IHAVEOPT, option, len(data)) + data


def strings(name, *queries):
    data = struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(queries))
    return data + b"".join(struct.pack(">I", len(query)) + query.encode() for query in queries)


def export(name):
    return struct.pack(">I", len(name)) + name.encode() + struct.pack(">HH", 1, 3)


class Connection:
    """An NBD client."""

    def __init__(self, port, structured=True, at_once=()):
        """at_once: options, each with its data, that leave before anything is received."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.cookie = 0
        flags = struct.pack(">I", 3)
        if at_once:
            self.socket.sendall(flags + b"".join(packed(*option) for option in at_once))
        magic, opts, server = struct.unpack(">QQH", self.receive(18))
        assert (magic, opts) == (NBD_MAGIC, IHAVEOPT) and server & 3 == 3
        if at_once:
            return
        self.socket.sendall(flags)
        if structured:
            self.option(STRUCTURED)

    def receive(self, n):
        data = bytearray()
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    def option(self, option, data=b""):
        """The replies, as (type, data)."""
        self.socket.sendall(packed(option, data))
        return self.replies(option)

    def replies(self, option):
        replies = []
        while True:
            magic, echo, kind, n = struct.unpack(">QIII", self.receive(20))
            data = self.receive(n)
            assert (magic, echo) == (REPLY_MAGIC, option)
            if kind & 1 << 31:
                raise Refused(kind, data.decode())
            if kind == REP_ACK:
                return replies
            replies.append((kind, data))

    def list(self):
        """{name: description}"""
        exports = {}
        for kind, data in self.option(LIST):
            assert kind == REP_SERVER
            n = struct.unpack(">I", data[:4])[0]
            exports[data[4:4 + n].decode()] = data[4 + n:].decode()
        return exports

    def contexts(self, option, name, *queries):
        """[(id, name)]"""
        return [(struct.unpack(">I", data[:4])[0], data[4:].decode())
                for kind, data in self.option(option, strings(name, *queries))
                if kind == REP_META]

    def go(self, name, option=GO):
        """Sets size, flags and block sizes."""
        for kind, data in self.option(option, export(name)):
            assert kind == REP_INFO
            what = struct.unpack(">H", data[:2])[0]
            if what == 0:
                self.size, self.flags = struct.unpack(">QH", data[2:])
            elif what == 3:
                self.blocks = struct.unpack(">III", data[2:])

    def send(self, kind, off=0, length=0, flags=0, payload=b""):
        self.cookie += 1
        head = struct.pack(">IHHQQI", 0x25609513, flags, kind, self.cookie, off, length)
        self.socket.sendall(head + payload)

    def ask(self, kind, off=0, length=0, flags=0, payload=b""):
        """Data of a READ, or {context: [(length, flags)]} of a BLOCK_STATUS."""
        self.send(kind, off, length, flags, payload)
        data, extents, error, done = bytearray(length if kind == READ else 0), {}, 0, False
        while not done:
            magic = struct.unpack(">I", self.receive(4))[0]
            if magic == 0x67446698:
                error, cookie = struct.unpack(">IQ", self.receive(12))
                assert cookie == self.cookie and (kind != READ or error)
                break
            assert magic == 0x668E33EF
            flags, chunk, cookie, n = struct.unpack(">HHQI", self.receive(16))
            body = self.receive(n)
            assert cookie == self.cookie
            done = flags & 1
            if chunk == 1:
                at = struct.unpack(">Q", body[:8])[0] - off
                data[at:at + n - 8] = body[8:]
            elif chunk == 5:
                words = struct.unpack(f">{n // 4}I", body)
                extents[words[0]] = list(zip(words[1::2], words[2::2]))
            elif chunk & 1 << 15:
                error = struct.unpack(">I", body[:4])[0]
            else:
                assert chunk == 0
        if error:
            raise Failed(error)
        return extents if kind == BLOCK_STATUS else bytes(data)

    def read(self, off, length):
        return self.ask(READ, off, length)

    def write(self, off, data, flags=0):
        self.ask(WRITE, off, len(data), flags, data)

    def ends(self):
        """Whether the peer closes it, or answers that it was fenced."""
        try:
            self.read(0, 1)
        except Failed as e:
            return e.error == ESHUTDOWN
        except (EOFError, ConnectionError):
            return True
        return False

    def close(self):
        self.socket.close()


def fields(context, prefix):
    assert context.startswith(prefix), context
    return dict(field.split("=", 1) for field in context[len(prefix):].split(","))


class Attachment:
    """Who we are: an id, a name, a generation; and what we remember."""

    def __init__(self, port, region, mode="w"):
        self.port, self.region, self.mode = port, region, mode
        self.id, self.generation, self.epoch = os.urandom(16).hex(), 1 << 32, None

    def hello(self, remembers, **more):
        said = {"v": 1, "id": self.id, "gen": self.generation, "mode": self.mode}
        said["name"] = "second.borrower"
        if remembers:
            said["epoch"] = self.epoch
        said.update(more)
        return "weft:session:" + ",".join(f"{key}={value}" for key, value in said.items())

    def open(self, remembers=False, region=None, **more):
        """A session."""
        session = Connection(self.port)
        try:
            query = self.hello(remembers, **more)
            # Looking grants nothing and selects nothing; then the same, selected.
            (zero, looked), = session.contexts(LIST_META, region or self.region, query)
            (session.context, selected), = session.contexts(SET_META, region or self.region, query)
            session.welcome = fields(selected, "weft:grant:")
            # The time since the mark goes on between the two.
            looked = fields(looked, "weft:grant:")
            for aging in ("marked", "unmarked"):
                assert int(looked.pop(aging, 0)) <= int(session.welcome.get(aging, 0))
            assert zero == 0
            assert looked == {k: v for k, v in session.welcome.items()
                              if k not in ("marked", "unmarked")}
            session.go(region or self.region)
        except BaseException:
            session.close()
            raise
        self.epoch = session.welcome["epoch"]
        return session

    def reconnect(self, **more):
        self.generation += 1
        return self.open(remembers=True, **more)

    def take_over(self, remembers=True, **more):
        self.generation = (self.generation >> 32) + 1 << 32
        return self.open(remembers=remembers, **more)


def goodbye(session):
    """The donor closes the connection once it has let go."""
    session.send(DISC)
    try:
        while session.receive(1):
            raise AssertionError("an answer to a goodbye")
    except EOFError:
        session.close()


def refused(word, fn, *args, **more):
    try:
        fn(*args, **more)
    except Refused as e:
        assert word in (e.word, e.error), f"{e}, and not {word}"
        return e.text
    raise AssertionError(f"granted, and not refused with {word}")


def failed(error, fn, *args, **more):
    try:
        fn(*args, **more)
    except Failed as e:
        assert e.error == error, f"{e}, and not {error}"
        return
    raise AssertionError(f"done, and not failed with {error}")


# ---- what the manual says ----


def a_stock_client_lists(port):
    c = Connection(port)
    exports = c.list()
    assert {"r", "s", "t"} <= set(exports), exports
    c.option(ABORT)
    c.close()


def a_writer_writes_and_reads_and_flushes(port):
    a = Attachment(port, "r")
    c = a.open()
    assert c.welcome["v"] == "1" and len(c.welcome["epoch"]) == 16 and c.welcome["lease"] == "2000"
    assert "tcp" in c.welcome["offers"].split(";") and "restorable" not in c.welcome
    wanted = SEND_FLUSH | MULTI_CONN | SEND_CACHE | SEND_FUA | SEND_TRIM | SEND_ZEROES
    wanted |= SEND_FAST_ZERO | SEND_DF
    assert c.flags & wanted == wanted and not c.flags & READ_ONLY
    assert c.size == 64 * MIB and c.blocks[0] == 1 and c.blocks[2] == 32 * MIB
    data = os.urandom(70001)
    c.write(4099, data)
    c.ask(FLUSH)
    assert c.read(4099, len(data)) == data
    c.write(1, b"x", FUA)
    c.ask(WRITE_ZEROES, 5000, 3 * MIB, NO_HOLE)
    assert c.read(5000, 3 * MIB) == bytes(3 * MIB)
    c.ask(TRIM, 6 * MIB, MIB)
    c.ask(CACHE, 0, 64 * MIB)
    # The context carries no block status.
    assert c.ask(BLOCK_STATUS, 0, 64 * MIB) == {c.context: [(64 * MIB, 0)]}
    # Too long: an error of the request, and the connection goes on.
    failed(EINVAL, c.write, 0, bytes(32 * MIB + 1))
    assert c.read(1, 1) == b"x"
    goodbye(c)


def everything_leaves_at_once(port):
    a = Attachment(port, "r")
    for query, granted in ((a.hello(False), True), (a.hello(False, id=7), False)):
        c = Connection(port, at_once=((STRUCTURED,), (SET_META, strings("r", query)),
                                      (GO, export("weft:session"))))
        assert c.replies(STRUCTURED) == []
        if granted:
            (kind, data), = c.replies(SET_META)
            assert kind == REP_META and fields(data[4:].decode(), "weft:grant:")
            assert len(c.replies(GO)) == 2
            c.write(0, b"at once")
            assert c.read(0, 7) == b"at once"
            goodbye(c)
        else:
            refused(ERR_INVALID, c.replies, SET_META)
            refused(ERR_UNKNOWN, c.replies, GO)
            # Nobody has the region.
            goodbye(a.open())
            c.close()


def signs_of_life_keep_a_region(port):
    a, other = Attachment(port, "r"), Attachment(port, "r")
    c = a.open()
    for _ in range(12):
        time.sleep(0.5)
        c.read(0, 1)
    refused("EBUSY", other.open)
    stock = Connection(port)
    refused("EBUSY", stock.go, "r")
    # The refused connection goes on: a question that grants nothing is answered.
    stock.go("r", INFO)
    stock.close()
    goodbye(c)
    goodbye(other.open())


def silence_loses_it(port):
    a = Attachment(port, "r")
    c = a.open()
    time.sleep(4)
    assert c.ends()
    refused("OVER", a.open, remembers=True)
    # Nobody wrote since: a higher generation goes on.
    goodbye(a.reconnect())


def sessions_join(port):
    a = Attachment(port, "r")
    one, two = a.open(), a.open(remembers=True)
    one.write(0, b"joined")
    assert two.read(0, 6) == b"joined"
    a.mode = "r"
    refused("EINVAL", a.open, remembers=True)
    a.mode = "w"
    goodbye(two)
    # The first has it still.
    refused("EBUSY", Attachment(port, "r").open)
    goodbye(one)


def a_higher_generation_supersedes(port):
    a = Attachment(port, "r")
    first = a.open()
    first.write(0, b"1.0")
    second = a.reconnect()
    assert first.ends() and second.read(0, 3) == b"1.0"
    a.generation -= 1
    refused("OVER", a.open, remembers=True)
    a.generation += 1
    third = a.take_over()
    assert second.ends()
    third.write(0, b"2.0")
    a.generation = (1 << 32) + 2
    refused("SUPERSEDED", a.open, remembers=True)
    a.generation = 2 << 32
    assert third.read(0, 3) == b"2.0"
    goodbye(third)


def after_another_writer_it_is_stale(port):
    a, other = Attachment(port, "r"), Attachment(port, "r")
    goodbye(a.open())
    goodbye(other.open())
    a.generation += 1
    refused("ESTALE", a.open, remembers=True)
    # It attaches anew.
    goodbye(a.take_over(remembers=False))
    # One that the donor does not know remembers nothing of it.
    unknown = Attachment(port, "r")
    unknown.epoch = a.epoch
    refused("ESTALE", unknown.open, remembers=True)
    # Nor does anybody of other contents.
    a.epoch = "00000000deadbeef"
    a.generation += 1
    refused("ESTALE", a.open, remembers=True)


def expect_means_the_contents(port):
    a = Attachment(port, "r")
    c = a.open()
    goodbye(c)
    b = Attachment(port, "r")
    goodbye(b.open(expect=c.welcome["epoch"]))
    refused("ESTALE", b.open, expect="00000000deadbeef")


def modes_exclude_each_other(port):
    writer, reader, shared = (Attachment(port, "r", mode) for mode in "wrs")
    w = writer.open()
    refused("EBUSY", reader.open)
    s = shared.open()
    assert s.flags & READ_ONLY
    failed(EPERM, s.write, 0, b"x")
    w.write(0, b"seen")
    assert s.read(0, 4) == b"seen"
    goodbye(w)
    r = reader.open()
    r2 = Attachment(port, "r", "r").open()
    refused("EBUSY", Attachment(port, "r").open)
    for c in (s, r, r2):
        goodbye(c)


def texts_are_read_as_written(port):
    a = Attachment(port, "r")
    hello = a.hello(False)
    c = Connection(port)
    bad = [hello + more for more in (",", ",gen=1", ",granted=1", ",wrote=1", ",renew=1")]
    bad += [hello + ",epoch=" + "0" * 16, hello + ",stripe=1/1:65536"]
    bad += [hello.replace("mode=w", "mode=x"), hello.replace("gen=", "gen=0")]
    bad += [hello.replace("name=second.borrower", "name="), hello.replace("v=1", "v=0")]
    bad += [hello.replace("v=1,", "") + ",colour=blue"]
    for text in bad:
        why = refused(ERR_INVALID, c.contexts, LIST_META, "r", text)
        assert why == "malformed weft:session", (text, why)
    good = [hello + ",colour=blue", hello.replace("v=1", "v=9"), hello + ",stripe=1/2:4096,renew=1"]
    for text in good:
        assert len(c.contexts(LIST_META, "r", text)) == 1, text
    why = refused("EPROTONOSUPPORT", c.contexts, LIST_META, "r", hello + ",!colour=blue")
    assert "colour" in why, why
    refused(ERR_INVALID, c.contexts, LIST_META, "r", hello, hello)
    refused(ERR_UNKNOWN, c.contexts, LIST_META, "nobody", hello)
    # Version 0 is answered in kind.
    (_, context), = c.contexts(LIST_META, "r", hello.replace("v=1,", ""))
    assert context.startswith("weft:grant:epoch="), context
    # What is said for one export counts for that one.
    c.contexts(SET_META, "r", hello)
    c.go("s")
    refused("EBUSY", Attachment(port, "s").open)
    c.close()
    # Without structured replies there are no contexts.
    c = Connection(port, structured=False)
    refused(ERR_INVALID, c.contexts, LIST_META, "r", hello)
    c.close()


def tenures_end_with_who_remembers_nothing(port):
    c = Connection(port)
    (zero, context), = c.contexts(LIST_META, "t", "weft:tenure:")
    assert c.contexts(SET_META, "t", "weft:tenure:") == []
    c.close()
    assert zero == 0 and context.startswith("weft:tenure:")
    tenure = context[len("weft:tenure:"):]
    for _ in range(2):
        c = Connection(port)
        c.go(f"t@{tenure}")
        c.write(0, b"stock")
        goodbye(c)
    a = Attachment(port, "t")
    refused("EINVAL", a.open, region=f"t@{tenure}")
    goodbye(a.open())
    c = Connection(port)
    refused("ESTALE", c.go, f"t@{tenure}")
    c.close()


def a_region_is_one_part_of_a_striped_device(port):
    a = Attachment(port, "s")
    goodbye(a.open(stripe="1/2:65536"))
    b = Attachment(port, "s")
    refused("EINVAL", b.open)
    refused("EINVAL", b.open, stripe="2/2:65536")
    b.mode = "s"
    goodbye(b.open())
    b = Attachment(port, "s")
    goodbye(b.open(stripe="1/1:0", renew=1))
    goodbye(b.take_over(remembers=True))


def a_file_is_restorable(port, state):
    a = Attachment(port, "f")
    c = a.open()
    assert c.welcome["restorable"] == "1"
    c.write(0, b"kept")
    c.ask(FLUSH)
    goodbye(c)
    with open(state, "w") as file:
        json.dump({"id": a.id, "generation": a.generation, "epoch": a.epoch}, file)


def a_file_that_was_closed_wants_to_know_more(port, state):
    a = Attachment(port, "f")
    with open(state) as file:
        kept = json.load(file)
    a.id, granted, a.epoch = kept["id"], kept["generation"], kept["epoch"]
    a.generation = granted
    # The same generation is over; a higher one has to say what it learned of.
    refused("OVER", a.open, remembers=True, granted=granted, wrote=1)
    a.generation += 1
    refused("ESTALE", a.open, remembers=True)
    # Knowing of more than the file: it was put back.
    refused("ESTALE", a.open, remembers=True, granted=granted + 1)
    c = a.open(remembers=True, granted=granted, wrote=1)
    assert c.read(0, 4) == b"kept"
    goodbye(c)


def nobody_writes_what_is_read_only(port):
    refused("EROFS", Attachment(port, "f").open)
    a = Attachment(port, "f", "r")
    one, two = a.open(), Attachment(port, "f", "r").open()
    assert "restorable" not in one.welcome and one.flags & READ_ONLY
    assert one.read(0, 4) == b"kept"
    failed(EPERM, one.write, 0, b"x")
    # Its contents have another epoch whenever they are others, so that nobody has to be known.
    unknown = Attachment(port, "f", "r")
    unknown.epoch = a.epoch
    for c in (one, two, unknown.open(remembers=True)):
        goodbye(c)


STEPS = {
    "memory": [
        a_stock_client_lists,
        a_writer_writes_and_reads_and_flushes,
        everything_leaves_at_once,
        signs_of_life_keep_a_region,
        silence_loses_it,
        sessions_join,
        a_higher_generation_supersedes,
        after_another_writer_it_is_stale,
        expect_means_the_contents,
        modes_exclude_each_other,
        texts_are_read_as_written,
        tenures_end_with_who_remembers_nothing,
        a_region_is_one_part_of_a_striped_device,
    ],
    "file": [a_file_is_restorable],
    "again": [a_file_that_was_closed_wants_to_know_more],
    "read-only": [nobody_writes_what_is_read_only],
}

for step in STEPS[sys.argv[2]]:
    print(step.__name__.replace("_", " "), flush=True)
    step(int(sys.argv[1]), *sys.argv[3:])
print("done")
