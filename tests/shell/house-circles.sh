# SPDX-License-Identifier: MIT
# No files need each other: not by their includes, and not by the functions and variables of each
# other that they use, which their object files tell.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3
need_tool nm

cd "$WEFT_SRC"
python3 - "$WEFT_BUILD" <<'PY'
import collections, os, re, subprocess, sys

build = sys.argv[1]
ROOTS = ("fabric", "transports", "nbd-bridge", "perf")
# The circles that there are still.  A line that is not right any more has to be mended.
CIRCLES = """
"""

files = {f"{folder}/{name}" for root in ROOTS for folder, _, names in os.walk(root) for name in names if name.endswith((".c", ".h"))}
needs = collections.defaultdict(set)
for file in files:
    needs[file].update(files & set(re.findall(r'^\s*#\s*include\s*"([^"]+)"', open(file).read(), re.M)))

# build/FOLDER/CMakeFiles/TARGET.dir/REST.c.o is of FOLDER/REST.c.
objects = {}
for folder, _, names in os.walk(build):
    for name in names:
        at = re.match(r"(.*)/CMakeFiles/[^/]+\.dir/(.*\.c)\.o$", os.path.relpath(f"{folder}/{name}", build))
        if at:
            source = os.path.normpath(f"{at[1]}/{at[2].replace('__/', '../')}")
            if source in files:
                objects[f"{folder}/{name}"] = source
owners, wants = collections.defaultdict(set), collections.defaultdict(set)
for line in subprocess.run(["nm", "-A", "-g", *objects], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
    path, _, rest = line.partition(":")
    kind, symbol = rest.split()[-2:]
    if kind == "U":
        wants[objects[path]].add(symbol)
    elif kind in "TDBRC":
        owners[symbol].add(objects[path])
for source, symbols in wants.items():
    for symbol in symbols:
        if len(owners[symbol]) == 1: # several programs have a function of this name
            needs[source] |= owners[symbol] - {source}

# Tarjan's strongly connected components.
number, low, stack, circles = {}, {}, [], []
def visit(file):
    number[file] = low[file] = len(number)
    stack.append(file)
    for other in sorted(needs[file]):
        if other not in number:
            visit(other)
        if other in stack:
            low[file] = min(low[file], low[other])
    if low[file] == number[file]:
        circle = stack[stack.index(file):]
        del stack[stack.index(file):]
        if len(circle) > 1:
            circles.append(circle)
for file in sorted(files):
    if file not in number:
        visit(file)

allowed = {line for line in CIRCLES.split("\n") if line}
found = {" ".join(sorted(circle)): set(circle) for circle in circles}
bad = 0
for line, circle in found.items():
    if line not in allowed:
        bad = 1
        print("these files need each other:")
        for file in sorted(circle):
            print(f"    {file} needs {' '.join(sorted(needs[file] & circle))}")
for line in sorted(allowed - set(found)):
    bad = 1
    print(f"not a circle any more; take the line out of this test: {line}")
if len(objects) < 150:
    bad = 1
    print(f"found only {len(objects)} object files in {build}")
sys.exit(bad)
PY
