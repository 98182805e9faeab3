# SPDX-License-Identifier: MIT
# The types that the Python module tells (weft/*.pyi) are those that it has, and programs that use
# it can be checked with them.
# presets: dev only
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool mypy
. "$WEFT_SRC/tests/python.sh"

export MYPYPATH=$WEFT_BUILD/python
cd "$TMP"
"$PYTHON" -m mypy.stubtest weft || fail "what the types say is not so"
cat >good.py <<'PY'
import weft

with weft.Region("weft://127.0.0.1/r", read_only=True, timeout=1.5) as region:
    text: bytes = region.pread(1, 2)
    with region.map(local_bytes=1 << 20) as m:
        dirty: list[tuple[int, int]] = m.dirty()
        mode: str = m.stats().mode
    region.map(mode="resident").close()


async def read(region: weft.Region) -> bytes:
    return await region.aio_pread(1, 2)
PY
cat >bad.py <<'PY'
import weft

region = weft.Region("u")
region.pread("1", 2)
region.map(local=5)
number: int = region.pread(1, 2)
region.map(mode="swapped")
PY
if "$PYTHON" -m mypy --cache-dir "$TMP/cache" --strict good.py bad.py >said; then
	fail "a program that is wrong is taken"
fi
! grep '^good.py' said || fail "a program that is right is not taken"
[[ $(grep -c '^bad.py:[4567]: error' said) = 4 ]] || fail "$(cat said)"
