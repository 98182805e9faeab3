# SPDX-License-Identifier: MIT
"""What Python makes of libweft: reads into a buffer, and every page of a map in turn.

    map.py URI ROUNDS       prints rows beside those of time-map
"""

import os
import sys
import time

import weft

SAMPLES = 400
PAGE, LOCAL, AT_A_TIME = 4096, 64 << 20, 1 << 20


def time_reads(region, size):
    buffer = bytearray(size)
    took = []
    for _ in range(SAMPLES):
        offset = int.from_bytes(os.urandom(4), "big") % (region.size // size) * size
        begin = time.perf_counter_ns()
        region.pread_into(buffer, offset)
        took.append((time.perf_counter_ns() - begin) / 1e3)
    return took


def time_map(region):
    with region.map(local_bytes=LOCAL) as mapped, memoryview(mapped) as view:
        begin = time.perf_counter_ns()
        for at in range(0, len(view), AT_A_TIME):
            bytes(view[at:at + AT_A_TIME:PAGE])
        return len(view) * 1e3 / (time.perf_counter_ns() - begin)


def main():
    uri, rounds = sys.argv[1], int(sys.argv[2])
    reads = {4096: [], 65536: []}
    rates = []
    with weft.Region(uri) as region:
        for _ in range(rounds):
            for size, took in reads.items():
                took += time_reads(region, size)
            rates.append(time_map(region))
    print("| | p50 us | p99 us |\n|---|---|---|")
    for size, took in reads.items():
        took.sort()
        print(f"| pread_into() {size >> 10} KiB | {took[len(took) // 2]:.2f} "
              f"| {took[len(took) * 99 // 100]:.2f} |")
    print("\n| | median |\n|---|---|")
    print(f"| map: every page in turn | {sorted(rates)[len(rates) // 2]:.1f} MB/s |")


main()
