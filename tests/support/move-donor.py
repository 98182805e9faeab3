# SPDX-License-Identifier: MIT
"""A donor that only answers questions (weft-protocol(7), "QUESTIONS"), as a script says.

    move-donor.py SCRIPT LOG
        prints its port; writes each question to LOG, a line

SCRIPT is a JSON object: for each op a list of answers, of which the last one is given again and
again.  An answer is an object, or one of these instead:
    {"refuse": TEXT}   NBD_REP_ERR_POLICY
    {"error": N}       NBD_REP_ERR_…, without a text
    {"hang_up": true}  the connection ends
    {"die": true}      the donor ends, without an answer
    {"silent": true}   no answer
"then" beside an op is an object like SCRIPT, which counts from that op's first question on, for the
ops that it has: {"take-abort": […], "then": {"take-abort": {"take-status": […]}}}.
"""

import json
import os
import socket
import struct
import sys
import threading

ASK = 0x77656674
ABORT, ACK, UNSUP, POLICY = 2, 1, 0x80000001, 0x80000002
PIECE = 4096

script = json.load(open(sys.argv[1]))
log = open(sys.argv[2], "w")
lock = threading.Lock()


def receive(conn, n):
    data = b""
    while len(data) < n:
        more = conn.recv(n - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def reply(conn, option, kind, data=b""):
    conn.sendall(struct.pack(">QIII", 0x0003E889045565A9, option, kind, len(data)) + data)


def next_answer(question):
    op = question["op"]
    with lock:
        print(json.dumps(question), file=log, flush=True)
        answers = script.get(op, [{"error": UNSUP}])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        script.update(script.get("then", {}).pop(op, {}))
    return answer


def answer(conn, question):
    said = next_answer(question)
    if "die" in said:
        os._exit(0)
    if "hang_up" in said:
        raise ConnectionError
    if "silent" in said:
        return
    if "refuse" in said:
        reply(conn, ASK, POLICY, said["refuse"].encode())
    elif "error" in said and len(said) == 1:
        reply(conn, ASK, said["error"])
    else:
        text = json.dumps(said).encode()
        for at in range(0, len(text), PIECE):
            reply(conn, ASK, ASK, text[at : at + PIECE])
        reply(conn, ASK, ACK)


def serve(conn):
    try:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.sendall(struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3))
        receive(conn, 4)
        while True:
            magic, option, n = struct.unpack(">QII", receive(conn, 16))
            assert magic == 0x49484156454F5054
            data = receive(conn, n)
            if option == ASK:
                answer(conn, json.loads(data))
            elif option == ABORT:
                reply(conn, option, ACK)
                return
            else:
                reply(conn, option, UNSUP)
    except ConnectionError:
        pass
    finally:
        conn.close()


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(os.environ.get("MOVE_PORT", "0"))))
listener.listen(16)
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
