# SPDX-License-Identifier: MIT
# Where a round trip is long, sockets of both ends may have 16 MiB on their way, which the kernel
# counts twice, 32 of a process at a time; near by TCP sizes its buffers by itself.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool ss jq

on_a_line <<'END'
port=${uri##*:} port=${port%%/*}
for lanes in 2 40 3; do # the second time more than may, then others again
	weft attach "$uri" --socket "$TMP/s" --lanes $lanes
	ss -tnmH state established "dport = :$port" >"$TMP/near.$lanes"
	nsenter --net="$WEFT_LINE_FAR" ss -tnmH state established "sport = :$port" \
		>"$TMP/far.$lanes"
	weft detach r
done
END
deep() { grep -c 'tb33554432' "$TMP/$1" || :; }
weft line --delay 5ms bash "$TMP/inside" || fail "exit status $?: $(cat "$TMP/donor.log")"
for end in near far; do
	[[ $(deep $end.2) = 2 ]] || fail "at the $end end: $(cat "$TMP/$end.2")"
	[[ $(deep $end.40) = 32 ]] || fail "at the $end end, of 40: $(deep $end.40)"
	[[ $(deep $end.3) = 3 ]] || fail "at the $end end, afterwards: $(cat "$TMP/$end.3")"
done

echo "== near by"
start_donor --memory r=1M --allow-insecure
weft attach "$URI" --socket "$TMP/s" --lanes 2
ss -tnmH state established "dport = :$PORT" >"$TMP/near"
grep -q tb "$TMP/near" || fail "no connection is seen"
[[ $(deep near) = 0 ]] || fail "$(cat "$TMP/near")"
weft detach r
