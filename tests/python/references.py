# SPDX-License-Identifier: MIT
"""No references are left behind: for a debug interpreter, which counts them.

Each case runs many times; one that leaks has more references after each round, by one a run at
least.
"""

import asyncio
import faulthandler
import gc
import sys
import warnings

import support
import weft

RUNS, ROUNDS = 5, 3


def opens(uri):
    with weft.Region(uri, connections=1) as region:
        repr(region), region.size, region.transports, region.closed


def reads_and_writes(uri, region):
    buffer = bytearray(100)
    region.pwrite(b"x" * 100, 0)
    region.pread_into(buffer, 0)
    region.pread(100, 0)
    region.flush()


def refused(uri, region):
    for call in (lambda: region.pread(1, region.size), lambda: region.pread(-1, 0),
                 lambda: region.pwrite(b"a", region.size), lambda: region.pread_into(b"a", 0),
                 lambda: region.map(5), lambda: weft.Region("http://here"), weft.Region,
                 lambda: weft.Region(5), lambda: weft.Region("u", key_file="/no/such/file"),
                 lambda: region.__init__(uri)):
        try:
            call()
        except Exception:
            pass
        else:
            raise AssertionError("not refused")


def maps(uri, region):
    with region.map(local_bytes=2 << 20) as m:
        with memoryview(m) as view:
            view[5] = 1
            part = view[:10]
            for close in m.close, region.close:
                try:
                    close()
                except BufferError:
                    pass
            part.release()
        m.sync(flush=True)
        m.dirty()
        m.dirty(reset=True)
        m.stats()
        m.evict(0, 4096)
        m.prefetch(0, 4096, wait=True)
        m.advise(weft.RANDOM)
        m.offset, m.region, m.read_only, m.closed, len(m), repr(m)
        for call in (lambda: m.rescue(print), m.reset, lambda: m.sync(1 << 40),
                     lambda: m.prefetch(wait=True), lambda: m.advise(9)):
            try:
                call()
            except (weft.Error, ValueError):
                pass
            else:
                raise AssertionError("not refused")
    region.map(local_bytes=2 << 20).close(discard=True)


def garbage(uri):
    region = weft.Region(uri, connections=1)
    region.me, region.m = region, region.map(local_bytes=2 << 20)
    region.view = memoryview(region.m)
    del region
    gc.collect()


def in_a_loop(uri, region):
    async def main():
        buffer = bytearray(10)
        await asyncio.gather(region.aio_pread(10, 0), region.aio_pread_into(buffer, 0),
                             region.aio_pwrite(b"abc", 0), region.aio_flush())
        for refused in (lambda: region.aio_pread(1, region.size),
                        lambda: region.aio_pwrite(b"a", region.size)):
            try:
                refused()
            except weft.Error:
                pass
        region.aio_pread(10, 0).cancel()
        while region._watch:
            await asyncio.sleep(0)

    asyncio.run(main())


def closes_in_flight(uri):
    async def main():
        with weft.Region(uri, connections=1) as region:
            reads = [region.aio_pread(4096, 0) for _ in range(4)]
        await asyncio.gather(*reads, return_exceptions=True)

    asyncio.run(main())


def patiently(case, *what):
    """The donor may hear a little later that the run before has let go of its region."""
    while True:
        try:
            return case(*what)
        except weft.Error as error:
            if "is held by" not in str(error):
                raise


def deltas(case, *what):
    counts = []
    for _ in range(ROUNDS + 1):
        for _ in range(RUNS):
            patiently(case, *what)
        gc.collect()
        counts.append(sys.gettotalrefcount())
    return [after - before for before, after in zip(counts, counts[1:])]


def main():
    faulthandler.dump_traceback_later(240, exit=True)
    warnings.simplefilter("ignore", ResourceWarning)
    donor = support.Donor("--memory", "r=4M", "--memory", "s=4M")
    leaks = 0
    with weft.Region(donor.uri("s"), connections=1) as region:
        for case, *what in ((opens,), (reads_and_writes, region), (refused, region),
                            (maps, region), (garbage,), (in_a_loop, region),
                            (closes_in_flight,)):
            # The first rounds fill what the interpreter keeps for later.
            patiently(case, donor.uri("r"), *what)
            found = deltas(case, donor.uri("r"), *what)
            is_leak = min(found) >= RUNS
            leaks += is_leak
            print(f"{case.__name__}: {found} references in {RUNS} runs each"
                  f"{': a leak' if is_leak else ''}")
    donor.end()
    sys.exit(1 if leaks else 0)


main()
