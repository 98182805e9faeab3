# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# serial
# processors: 2
# The peers' comparison works: each contestant starts, moves the right bytes, does work in every
# row; and a contestant that moves nothing is found.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio nbdkit nvme nbd-client jq

cd "$WEFT_SRC"
perf/block-devices --check >"$TMP/out" 2>"$TMP/err" ||
	fail "exit status $?: $(tail -n 30 "$TMP/err")"
for contestant in null-blk nbd-floor null-bridge nbdkit nvme-rdma nvme-tcp srp weft-srp weft-ublk weft-rdma weft-ublk-tcp weft-tcp weft-plain; do
	grep -q "^$contestant: .* moves the right bytes" "$TMP/err" ||
		fail "$contestant was not checked: $(cat "$TMP/err")"
	[[ $(grep -c "^| $contestant |" "$TMP/out") -ge 7 ]] ||
		fail "$contestant is not in every row: $(cat "$TMP/out")"
done

! perf/block-devices --check null-blk nothing >"$TMP/out" 2>"$TMP/err" ||
	fail "a device that moves nothing passed"
grep -q 'nothing: reads other bytes than were written' "$TMP/err" || fail "$(cat "$TMP/err")"
