# SPDX-License-Identifier: MIT
# Every source, script and manual says its licence in its first lines, as SPDX has it: that of
# LICENSE.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

cd "$WEFT_SRC"
python3 - <<'PY'
import os, re, sys

licence = {"MIT License": "MIT"}[open("LICENSE").readline().strip()]
SKIP = ("./build", "./.git", "./.cache", "./perf/results", "./tests/fuzz/corpus")
KINDS = re.compile(r"\.(c|h|cc|pml|map|bt|d|sh|cmake|jq|pyi?|awk|in|service|socket|conf|bash"
                   r"|[1-8])$"
                   r"|/CMakeLists\.txt$|/completion/weft$")
bad, nr = [], 0
for folder, folders, names in os.walk("."):
    folders[:] = [name for name in folders if f"{folder}/{name}" not in SKIP]
    for path in (f"{folder}/{name}" for name in names):
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            head = [file.readline().decode(errors="replace") for _ in range(2)]
        script = head[0].startswith("#!")
        if not script and not KINDS.search(path):
            continue
        nr += 1
        said = re.search(r"SPDX-License-Identifier: (\S+)", head[1] if script else head[0])
        if not said:
            bad.append(f"{path}: its {'second' if script else 'first'} line names no licence")
        elif said[1] != licence:
            bad.append(f"{path}: {said[1]}, and LICENSE says {licence}")
print("\n".join(bad))
sys.exit(1 if bad or nr < 500 else 0)
PY
