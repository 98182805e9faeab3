# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# serial
# processors: 2
# A program with half of the memory that it wants, and the rest on another machine, over three swap
# spaces: what it finds is right, nobody is killed for want of memory, and it did swap (perf/swap).
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool nbdkit nbd-client jq

cd "$WEFT_SRC"
perf/swap --check --nodes 2 --loads program --timeout 800 nbdkit weft-socket weft-ublk \
	>"$TMP/out" 2>"$TMP/err" || fail "exit status $?: $(tail -n 30 "$TMP/err" "$TMP/out")"
for kind in nbdkit weft-socket weft-ublk; do
	awk -v kind=$kind '$2 == "program" && $4 == kind && $5 == "yes" && $8 > 100 { found = 1 }
		END { exit !found }' "$TMP/err" || fail "$kind: $(cat "$TMP/err")"
done
cat "$TMP/out"
