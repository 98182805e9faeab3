# SPDX-License-Identifier: MIT
# The programs of tests/examples, with a quarter of the memory that their data take: their results
# are those of the same program in plain memory.
# presets: dev only
# timeout: 400
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool g++

examples=$WEFT_SRC/tests/examples
flags=(-O2 -Wall -Wextra -Werror -I"$WEFT_SRC/nbd-bridge/library")
libs=(-L"$WEFT_BUILD/lib" -lweft)
gcc -std=gnu11 "${flags[@]}" "$examples/sort.c" -o "$TMP/sort" "${libs[@]}"
g++ -std=c++17 "${flags[@]}" "$examples/pmr.cc" -o "$TMP/pmr" "${libs[@]}"
export LD_LIBRARY_PATH=$WEFT_BUILD/lib

start_donor --memory r=32M --memory s=48M
base=${URI%/*}
# 32 MB of numbers, 8 MiB here.
said=$("$TMP/sort" "$base/r" 4000000 $((8 << 20)) 2>&1) || {
	[[ $said = *"needs Linux 6.8"* || $said = *userfaultfd* ]] && skip "$said"
	fail "sort: $said"
}
[[ $said = $("$TMP/sort" - 4000000) ]] || fail "sorted at a donor the numbers are others: $said"
# About 40 MB of nodes and strings.
said=$("$TMP/pmr" "$base/s" 150000 $((8 << 20)))
[[ $said = $("$TMP/pmr" - 150000) ]] || fail "containers at a donor are others: $said"
