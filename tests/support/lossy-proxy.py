# SPDX-License-Identifier: MIT
"""
lossy-proxy.py PORT DIRECTORY: stands before a server of HTTP at 127.0.0.1:PORT, and prints its own
port.  While DIRECTORY/lose has a word, the next request of which the first line has that word is
lost: its answer, once the server has given it, or with DIRECTORY/ask the request itself.  Then the
file goes.  What is lost is not answered: curl asks again where a connection was closed.
"""
import os
import socket
import sys
import threading
import time

PORT, DIRECTORY = int(sys.argv[1]), sys.argv[2]
SILENT_S = 20


def is_lost(name, head):
    """Whether this is the one, which is so once."""
    path = os.path.join(DIRECTORY, name)
    try:
        with open(path, encoding="ascii") as file:
            word = file.read().strip().encode()
        if word not in head:
            return False
        os.unlink(path)
        return True
    except OSError:
        return False


def message(stream):
    """A head and its body; None: the other side is gone."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    left, chunked = 0, False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.split(b":")[1])
        chunked = chunked or line.startswith(b"transfer-encoding: chunked")
    body = stream.read(left)
    while chunked:
        line = stream.readline()
        part = stream.read(int(line, 16) + 2)
        body += line + part
        chunked = int(line, 16) > 0
    return head + body


def serve(client):
    with client, socket.create_connection(("127.0.0.1", PORT)) as server:
        asks, answers = client.makefile("rb"), server.makefile("rb")
        while question := message(asks):
            head = question.split(b"\r\n")[0]
            if is_lost("ask", head):
                time.sleep(SILENT_S)
                return
            lost = is_lost("lose", head)
            # curl waits for that before it sends much; none of these is so much.
            server.sendall(question)
            answer = message(answers)
            if lost:
                time.sleep(SILENT_S)
            if lost or not answer:
                return
            client.sendall(answer)


with socket.create_server(("127.0.0.1", 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
