# SPDX-License-Identifier: MIT
# A region of 4 GiB: a push writes the one block in a hundred that differs and no other, and a map
# with 128 MiB here shows all of it, in turn, as it is in the file.
# presets: dev only
# tier: long
# timeout: 1800
# processors: 2
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../python.sh"
need_tool jq
# The region and the file are memory.
(($(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo) > 11 << 20)) ||
	skip "it takes 11 GiB of memory"
dir=$(mktemp -d /dev/shm/weft-4g.XXXXXX)
# shellcheck disable=SC2016 # when the test ends
cleanup_add 'rm -r "$dir"'

start_donor --memory r=4G
python <<PY
import os, random
random.seed(4)
block = random.randbytes(1 << 20)
with open("$dir/file", "wb") as f:
    for i in range(4 << 10):
        f.write(i.to_bytes(8, "little") + block[8:])
PY
weft push "$dir/file" "$URI" >/dev/null || fail "the first push"
changed=$(python <<PY
import random
random.seed(5)
blocks = random.sample(range(1 << 20), 10486)
with open("$dir/file", "r+b") as f:
    for at in blocks:
        f.seek(at * 4096 + at % 4096)
        byte = f.read(1)
        f.seek(at * 4096 + at % 4096)
        f.write(bytes([byte[0] ^ 0xff]))
print(len(blocks))
PY
)
weft push --json "$dir/file" "$URI" >"$TMP/json" || fail "the second push"
jq -c . "$TMP/json"
jq -e --argjson n "$((changed * 4096))" '.different_bytes == $n and .complete' "$TMP/json" \
	>/dev/null || fail "$changed blocks of 4096 differ"

python <<PY
import mmap, time, weft
MIB = 1 << 20
with open("$dir/file", "rb") as f, weft.Region("$URI") as region:
    file = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    with region.map(local_bytes=128 * MIB, read_only=True) as mapped, memoryview(mapped) as view:
        begin = time.monotonic()
        for at in range(0, len(view), MIB):
            assert view[at:at + MIB] == file[at:at + MIB], at
        print(f"{len(view) / 1e6 / (time.monotonic() - begin):.0f} MB/s, compared")
PY
stop_donor || fail "exit status $?"
