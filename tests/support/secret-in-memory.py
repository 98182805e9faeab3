# SPDX-License-Identifier: MIT
"""secret-in-memory.py PID KEYFILE: prints each place of the process that has the key's secret, in
bytes or in digits: "locked" if no swap and no core can have it, or "open".  77: not allowed."""
import re
import sys

with open(sys.argv[2]) as file:
    digits = file.readline().strip().split(":")[1]
wanted = (bytes.fromhex(digits), digits.encode())
place, places = None, []
for line in open(f"/proc/{sys.argv[1]}/smaps"):
    head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (r?)", line)
    if head:
        place = [int(head[1], 16), int(head[2], 16)]
        if head[3] and place[1] - place[0] <= 256 << 20:
            places.append(place)
    elif line.startswith("VmFlags:"):
        place.append("locked" if {"lo", "dd"} <= set(line.split()) else "open")
try:
    memory = open(f"/proc/{sys.argv[1]}/mem", "rb")
except PermissionError:
    sys.exit(77)
for start, end, kind in places:
    try:
        memory.seek(start)
        found = memory.read(end - start)
    except OSError:  # a device's, or nothing behind it
        continue
    for _ in range(sum(found.count(one) for one in wanted)):
        print(kind)
