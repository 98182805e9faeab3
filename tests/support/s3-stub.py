# SPDX-License-Identifier: MIT
"""As much of S3 as nbdkit's plugin speaks: objects in memory; PUT, GET with a range, DELETE.

s3-stub.py [FILE]: prints its port; while FILE exists, each request is an error.
"""
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

objects = {}
broken = sys.argv[1] if len(sys.argv) > 1 else ""


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.end_headers()
        self.wfile.write(body)

    def error(self, code, name):
        self.answer(code, f"<Error><Code>{name}</Code><Message>{name}</Message></Error>".encode())

    def body(self):
        n = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(n)

    def is_broken(self):
        if os.path.exists(broken):
            self.error(403, "AccessDenied")
            return True
        return False

    def do_GET(self):
        if self.is_broken():
            return
        value = objects.get(self.path)
        if value is None:
            self.error(404, "NoSuchKey")
            return
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if part:
            first, last = (int(x) for x in part.groups())
            self.answer(206, value[first:last + 1])
        else:
            self.answer(200, value)

    def do_PUT(self):
        body = self.body()
        if not self.is_broken():
            objects[self.path] = body
            self.answer(200)

    def do_DELETE(self):
        if not self.is_broken():
            objects.pop(self.path, None)
            self.answer(204)

    def do_POST(self):  # several are deleted at once
        body = self.body().decode()
        if self.is_broken():
            return
        for key in re.findall("<Key>([^<]*)</Key>", body):
            objects.pop(f"{self.path.split('?')[0].rstrip('/')}/{key}", None)
        self.answer(200, b"<DeleteResult/>")

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
print(server.server_port, flush=True)
server.serve_forever()
