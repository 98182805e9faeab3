# SPDX-License-Identifier: MIT
# The rooms are the architecture: who may include whom.  Arrows go one way: front, device, library
# -> bridge -> cache -> lane -> link -> fabric.  A private header is its room's, and only
# transports/drivers.c knows which transports exist.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

cd "$WEFT_SRC"
python3 - <<'PY'
import os, re, sys

# A room, and the prefixes of what it may include: the first that the file's path begins with.
TOP = [f"fabric/{name}.h" for name in (
    "transport", "hashing", "marking", "copying", "hello", "stripe", "uri", "uri-key", "listen")]
BRIDGE = ["fabric/", "nbd-bridge/bridge/", "nbd-bridge/lane/request.h", "nbd-bridge/lane/buffers.h"]
RULES = [
    ("fabric/base/", ["fabric/base/"]),
    ("fabric/machine/", ["fabric/base/", "fabric/machine/"]),
    ("fabric/key/", ["fabric/base/", "fabric/key/"]),
    ("fabric/region/", ["fabric/base/", "fabric/machine/", "fabric/region/", *TOP]),
    ("fabric/donor/", ["fabric/base/", "fabric/machine/", "fabric/region/", "fabric/donor/",
        "fabric/key/", *TOP]),
    ("fabric/nbd/", ["fabric/base/", "fabric/key/", "fabric/nbd/", *TOP]),
    ("fabric/exports/", ["fabric/base/", "fabric/region/", "fabric/donor/", "fabric/nbd/",
        "fabric/exports/", *TOP]),
    ("fabric/scsi/", ["fabric/base/", "fabric/scsi/"]),
    ("fabric/move/", ["fabric/base/", "fabric/region/", "fabric/donor/", "fabric/key/",
        "fabric/driver.h", "fabric/move/", *TOP]),
    ("fabric/pool/", ["fabric/base/", "fabric/machine/", "fabric/key/", "fabric/donor/peer.h",
        "fabric/listen.h", "fabric/pool/"]),
    ("fabric/main/", ["fabric/"]),
    ("fabric/", ["fabric/base/", "fabric/key/", "fabric/machine/",
        "fabric/donor/", "fabric/driver.h", "fabric/listener.h", *TOP]),
    ("transports/nbd/driver.", ["fabric/", "transports/nbd/"]),
    ("transports/nbd/borrower/", ["fabric/", "transports/nbd/borrower/"]),
    ("transports/nbd/donor/", ["fabric/", "transports/nbd/donor/"]),
    ("transports/rdma/", ["fabric/", "transports/rdma/"]), # no transport: for those over RDMA
    *[(f"transports/quic/{room}", ["fabric/", f"transports/quic/{room}", "transports/quic/"])
        for room in ("borrower/", "donor/", "")],
    *[(f"transports/{name}/{room}", ["fabric/", "transports/rdma/", f"transports/{name}/{room}",
        f"transports/{name}/"])
        for name in ("verbs", "srp") for room in ("borrower/", "donor/", "")],
    ("transports/mem/", ["fabric/", "transports/mem/"]),
    ("transports/drivers.c", ["fabric/", "transports/"]),
    ("nbd-bridge/link/", ["fabric/", "nbd-bridge/link/"]),
    ("nbd-bridge/lane/", ["fabric/", "nbd-bridge/link/", "nbd-bridge/lane/"]),
    ("nbd-bridge/cache/", ["fabric/", "nbd-bridge/link/", "nbd-bridge/lane/", "nbd-bridge/cache/"]),
    ("nbd-bridge/bridge/", ["fabric/", "nbd-bridge/link/", "nbd-bridge/lane/", "nbd-bridge/cache/", "nbd-bridge/bridge/"]),
    ("nbd-bridge/front/", [*BRIDGE, "nbd-bridge/front/"]),
    # The Python module is a program of libweft's, and knows what programs know.
    ("nbd-bridge/library/python/", ["nbd-bridge/library/weft.h", "nbd-bridge/library/python/"]),
    ("nbd-bridge/library/", [*BRIDGE, "nbd-bridge/lane/drive.h", "nbd-bridge/library/"]),
    ("nbd-bridge/device/", [*BRIDGE, "nbd-bridge/front/", "nbd-bridge/device/"]),
    ("nbd-bridge/main/", ["fabric/", "nbd-bridge/"]),
]
# Those that break a rule still: "file: header".  A line that is not needed any more has to go.
OFFENDERS = """
""".split("\n")

# Besides the table, those who know a transport by nature: what measures the one, or takes a donor's
# place in a measurement.
KNOW = {
    "perf/bench/run.c": "nbd", # the socket of a bridge speaks it
    "perf/count/verbs.c": "verbs",
    "perf/harness/mem-bridge.h": "mem",
    "perf/suites/tls.c": "nbd",
    "perf/suites/verbs.c": "verbs",
}

offenders = {line for line in OFFENDERS if line}
found, bad, nr = set(), [], 0
for root in ("fabric", "transports", "nbd-bridge"):
    for folder, _, names in os.walk(root):
        for name in names:
            if not name.endswith((".c", ".h")):
                continue
            path, nr = f"{folder}/{name}", nr + 1
            text = open(path).read()
            allowed = next((allowed for room, allowed in RULES if path.startswith(room)), None)
            if allowed is None:
                bad.append(f"{path}: no rule says what this room may include")
                continue
            for header in re.findall(r'^\s*#\s*include\s*"([^"]+)"', text, re.M):
                private = header.endswith("-private.h") and os.path.dirname(header) != folder
                if any(header.startswith(prefix) for prefix in allowed) and not private:
                    continue
                line = f"{path}: {header}"
                found.add(line)
                if line not in offenders:
                    bad.append(f"{path} may not include \"{header}\"")
            for header in re.findall(r"^\s*#\s*include\s*<((?:infiniband|rdma)/[^>]+)>", text, re.M):
                if not re.match("transports/(rdma|verbs|srp)/", path):
                    bad.append(f"{path}: <{header}> belongs to transports over RDMA alone")
            # The library's interface is before 1.0: few files know it.
            for header in re.findall(r"^\s*#\s*include\s*<(ngtcp2/[^>]+)>", text, re.M):
                if path != "transports/quic/quic-private.h":
                    bad.append(f"{path}: <{header}> is known to quic-private.h alone")
            if "quic/quic-private.h\"" in text and not re.fullmatch(
                    r"transports/quic/(quic|datagrams|stateless)\.c", path):
                bad.append(f"{path}: ngtcp2 is known to three files of transports/quic/ alone")

# Outside of transports nobody asks for one by its name: words and operations' names come from the
# table.  "nbd" is a protocol and a device of the kernel as well; perf draws what only RDMA has.
words = set()
for folder, _, files in os.walk("transports"):
    for name in files:
        if name.endswith(".c"):
            text = open(f"{folder}/{name}").read()
            words.update(re.findall(r'^\t\.(?:word|name) = "([^"]+)"', text, re.M))
if not {"tcp", "rdma", "verbs", "mem"} <= words:
    bad.append(f"only found the transports' names {sorted(words)}")
words.discard("nbd")
# What a key may be granted has a name of its own.
RIGHTS = {"rdma-plaintext"}
for root in ("fabric", "nbd-bridge"):
    for folder, _, files in os.walk(root):
        for name in files:
            path = f"{folder}/{name}"
            if not path.endswith((".c", ".h")):
                continue
            text = re.sub(r"/\*.*?\*/", "", open(path).read(), flags=re.S)
            for literal in re.findall(r'"((?:[^"\\\n]|\\.)*)"', text):
                if re.split(r"[^A-Za-z0-9_]", literal)[0] in words and literal not in RIGHTS:
                    bad.append(f'{path}: "{literal}" names a transport')
used = set()
for folder, _, files in os.walk("perf"):
    for name in files:
        path = f"{folder}/{name}"
        if not path.endswith((".c", ".h", ".cc")):
            continue
        for header in re.findall(r'^\s*#\s*include\s*"transports/([^/"]+)/', open(path).read(), re.M):
            used.add(path)
            if KNOW.get(path) != header:
                bad.append(f"{path} may not know the transport {header}")
bad += [f"{path}: knows no transport any more; take the line out of this test" for path in sorted(KNOW.keys() - used)]
bad += [f"{line}: not so any more; take the line out of this test" for line in sorted(offenders - found)]
print("\n".join(bad))
sys.exit(1 if bad or nr < 100 else 0)
PY
