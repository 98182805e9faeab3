# SPDX-License-Identifier: MIT
"""A file that a program keeps mapped and changes, of which a donor has a copy that is a second old.

    push-every-second.py FILE URI SECONDS

The program writes as it likes; weft push --watch looks every second, sends the blocks of 4 KiB that
differ, and says when two looks found nothing: then the copy is the file as it was at one moment.
When the program is done, a last push makes the copy the same for certain.
"""

import mmap
import random
import signal
import subprocess
import sys
import time


def work(memory, until):
    """What the program does: a burst of writes, then a pause in which it leaves all as it is."""
    counts = memoryview(memory).cast("Q")
    while time.monotonic() < until:
        for _ in range(1000):
            counts[random.randrange(len(counts))] += 1
        time.sleep(0.5)
    counts.release()


def main():
    path, uri, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        watch = subprocess.Popen(["weft", "push", "--watch", "--interval", "1", path, uri])
        try:
            work(memory, time.monotonic() + seconds)
        finally:
            watch.send_signal(signal.SIGINT)  # it ends what is on its way
            watch.wait()
        # What the last look has not seen.
        subprocess.run(["weft", "push", path, uri], check=True)


main()
