# SPDX-License-Identifier: MIT
# A transport is reachable by its row alone: weft attach, with "mem" in its table of transports and
# nothing else that knows it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdinfo
need_tool nbdcopy

attach() { "$WEFT_BUILD/tests/with-mem/weft-attach" "$@"; }

echo "a program without the row does not know it"
weft attach mem:///scratch --socket "$TMP/s" 2>"$TMP/err" && fail "it attached"
grep -q "its scheme is none of weft, nbd, weft+unix, nbd+unix, srp; " "$TMP/err" ||
	fail "$(cat "$TMP/err")"

attach mem:///scratch --socket "$TMP/s" --lanes 2 | tee "$TMP/out"
grep -q "'scratch' is attached: mem:///scratch, 64 MiB, to read and write" "$TMP/out" ||
	fail "not as expected"
grep -q 'transport mem (the region is in this process), 2 lanes' "$TMP/out" || fail "not over mem"
weft status scratch | grep -q 'transport mem (the region is in this process)' ||
	fail "$(weft status scratch)"

echo "it has the bytes"
head -c 8M /dev/urandom >"$TMP/data"
nbdcopy --flush "$TMP/data" "nbd+unix:///?socket=$TMP/s"
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/got"
cmp -n 8388608 "$TMP/data" "$TMP/got"

echo "another transport is refused"
attach mem:///other --transport tcp --socket "$TMP/o" 2>"$TMP/err" && fail "it attached"
grep -q 'cannot attach over TCP: it is in this process; use --transport auto' "$TMP/err" ||
	fail "$(cat "$TMP/err")"
weft detach scratch
