#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether what a document shows of a session is what the programs say.

usage: session.py DOCUMENT HEADING [NAME=VALUE]…

Runs each line "    $ COMMAND" below the heading, up to the next one, and compares what is shown
below the command with what it says on standard output.  Numbers, with their units, may be others;
a line of "…" stands for any lines.  NAME, a word of its own, is VALUE here: a host and its port.
What a status shows may take a moment, as it does for whoever types: it is asked for up to 10 s.
Exit status 1: something differs, and is printed.
"""
import re
import subprocess
import sys
import time

PROMPT, INDENT = "    $ ", "    "


def commands(path, heading):
    """Each command with the lines below it."""
    inside, found = False, []
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("#"):
            inside = line.lstrip("# ") == heading
        elif inside and line.startswith(PROMPT):
            found.append((line[len(PROMPT):], []))
        elif inside and found and line.startswith(INDENT):
            found[-1][1].append(line[len(INDENT):])
    return found


def plain(line):
    line = re.sub(r"\b\d+(\.\d+)?( [KMGT]i?B| B)?(?![\w])", "N", line.rstrip())
    return re.sub(r"\b(round|borrower|reconnect|lane)s\b", r"\1", line)


def matches(shown, said):
    if not shown:
        return not said
    if shown[0].strip() == "…":
        return any(matches(shown[1:], said[i:]) for i in range(len(said) + 1))
    return bool(said) and plain(shown[0]) == plain(said[0]) and matches(shown[1:], said[1:])


def main():
    names = [word.split("=", 1) for word in sys.argv[3:]]
    found = commands(sys.argv[1], sys.argv[2])
    differ = not found
    for command, shown in found:
        here = command
        for name, value in names:
            here = re.sub(rf"(?<![\w.]){name}(?=[/\s]|$)", value, here)
        end = time.monotonic() + (10 if command.startswith("weft status") else 0)
        while True:
            said = subprocess.run(here, shell=True, stdout=subprocess.PIPE, text=True,
                                  check=False).stdout
            for name, value in names:
                said = said.replace(value, name)
            if matches(shown, said.splitlines()) or time.monotonic() >= end:
                break
            time.sleep(0.1)
        print(f"$ {command}\n{said}", end="")
        if not matches(shown, said.splitlines()):
            differ = True
            print("— shown is:", *shown, sep="\n")
    if not found:
        print("there is no command")
    sys.exit(differ)


main()
