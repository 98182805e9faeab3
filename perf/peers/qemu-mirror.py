#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Has a qemu-storage-daemon mirror one of its nodes to another, and go over to that.

usage: qemu-mirror.py SOCKET FROM TO PATIENCE

SOCKET is the daemon's QMP socket.  Prints JSON: the seconds
until everything was copied once (ready_s) and until the daemon had gone over (total_s); both are
null when that did not come within PATIENCE seconds, and the job is cancelled then.
"""
import json
import socket
import sys
import time


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")
        self.next()
        self.ask("qmp_capabilities")

    def next(self):
        line = self.lines.readline()
        if not line:
            sys.exit("the daemon has ended")
        message = json.loads(line)
        if "error" in message:
            sys.exit(message["error"]["desc"])
        return message

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            message = self.next()
            if "return" in message:
                return message["return"]


def main():
    path, source, target, patience = sys.argv[1:]
    qmp = Qmp(path)
    start = time.monotonic()
    ready = None
    qmp.ask("blockdev-mirror", **{"job-id": "m", "device": source, "target": target,
                                  "sync": "full", "copy-mode": "background",
                                  "auto-dismiss": False, "auto-finalize": True})
    while True:
        job = qmp.ask("query-jobs")[0]
        now = time.monotonic() - start
        if job["status"] == "ready" and ready is None:
            ready = now
            qmp.ask("job-complete", id="m")
        elif job["status"] == "concluded":
            if "error" in job:
                sys.exit(job["error"])
            print(json.dumps({"ready_s": ready, "total_s": now}))
            return
        elif ready is None and now > float(patience):
            qmp.ask("job-cancel", id="m")
            print(json.dumps({"ready_s": None, "total_s": None}))
            return
        time.sleep(0.005)


main()
