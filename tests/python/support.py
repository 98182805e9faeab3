# SPDX-License-Identifier: MIT
"""What tests of the Python module share: a donor over TCP, which a test may stop and kill."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

import weft

# Sanitizers are slow, and so is a machine that runs other tests.
PATIENCE_S = 60


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE_S} s for: {what}")
        time.sleep(0.01)


class Donor:
    """weft serve with these options; .uri(name) is a region."""

    def __init__(self, *options, port=0):
        self.process = subprocess.Popen(
            [os.path.join(os.environ["WEFT_BIN"], "weft-serve"), "--listen", f"127.0.0.1:{port}",
             "--keep", "0", "--lease", "2", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.port, said = None, ""
        for line in self.process.stdout:
            said += line
            if listens := re.match(r"listening on 127\.0\.0\.1:(\d+)", line):
                self.port = int(listens[1])
            if line == "ready\n":
                break
        else:
            raise AssertionError(f"no donor: {said}")
        # So that it never waits for its pipe.
        self.reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.reader.start()

    def uri(self, name):
        return f"weft://127.0.0.1:{self.port}/{name}"

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(how)
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def is_stopped(self):
        tasks = f"/proc/{self.process.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] != "T":
                    return False
        return True

    @contextlib.contextmanager
    def stopped(self):
        self.process.send_signal(signal.SIGSTOP)
        wait_for(self.is_stopped, "the donor to stop")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


class DonorCase(unittest.TestCase):
    """Tests with a donor for all of them."""

    options = ("--memory", "r=8M", "--memory", "s=8M")

    @classmethod
    def setUpClass(cls):
        cls.donor = Donor(*cls.options)
        cls.addClassCleanup(cls.donor.end)

    def open(self, name="r", **options):
        """A region of the donor, once nobody holds it, that is closed after the test."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                region = weft.Region(self.donor.uri(name), **options)
                break
            except weft.Error as error:
                if "in use" not in str(error) and "held" not in str(error) \
                        or time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.addCleanup(region.close)
        return region

    @contextlib.contextmanager
    def raises(self, number):
        """weft.Error of this errno."""
        with self.assertRaises(weft.Error) as caught:
            yield caught
        self.assertEqual(caught.exception.errno, number, caught.exception)

    @contextlib.contextmanager
    def interrupted(self, after_s=0.3, within_s=5):
        """What runs inside waits, and ends with KeyboardInterrupt."""
        begin = time.monotonic()
        timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with self.assertRaises(KeyboardInterrupt):
            yield
        timer.join()
        self.assertLess(time.monotonic() - begin, after_s + within_s)


@contextlib.contextmanager
def unraisable():
    """A list of the exceptions that nobody could be given."""
    told, before = [], sys.unraisablehook
    sys.unraisablehook = lambda what: told.append(what.exc_value)
    try:
        yield told
    finally:
        sys.unraisablehook = before
