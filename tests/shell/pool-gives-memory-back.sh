# SPDX-License-Identifier: MIT
# A donor lends all but its reserve, and all of that is in use.  A job of its own machine grows by
# 40 MiB a second beyond the reserve: it gets its memory, is not killed, and takes as much processor
# time as on a machine that lends nothing, while fio at the borrower verifies all that it wrote.
# tier: long
# timeout: 300
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
need_tool jq python3 fio
memory_group $((768 << 20))

# Takes 300 MiB, 10 MiB each quarter of a second, then works on it; says how late it had any of
# it, and what processor time it took in sum, whatever else the machine does.
cat >"$TMP/job.py" <<'PY'
import time
begin = time.monotonic()
blocks, late = [], 0
for i in range(30):
    due = begin + i / 4
    time.sleep(max(0, due - time.monotonic()))
    block = bytearray(10 << 20)
    block[::4096] = b"x" * len(block[::4096])
    blocks.append(block)
    late = max(late, time.monotonic() - due)
for i in range(40):
    for block in blocks:
        block[::64] = block[::-64]
print("late %.2f took %.2f" % (late, time.process_time()))
PY
job() {
	in_memory_group python3 "$TMP/job.py" >"$TMP/job" || fail "the job was killed: $?"
	cat "$TMP/job"
}
FIOS=()
figure() { sed -E "s/.*$1 ([0-9.]+).*/\1/" "$TMP/job"; }

echo "alone"
job
alone=$(figure took)

start_pool
in_memory_group weft-serve --listen 127.0.0.1:0 --pool "$WEFT_POOL" --pool-name idle --lend idle \
	--reserve 192M >"$TMP/donor.idle" 2>&1 &
wait_for -t 60 has_donor idle
for i in 1 2 3 4 5 6; do
	weft pool alloc "l$i" --size 80M >/dev/null || fail "alloc $i: $(weft pool donors)"
	weft attach "pool:l$i" --socket "$TMP/s$i" >/dev/null || fail "attach $i"
done
pool_donor other 600M
echo "while all is lent: $(weft pool donors | tail -n 2)"
for i in 1 2 3 4 5 6; do
	fio --name="v$i" --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s$i" --rw=randrw --bs=64k \
		--size=80M --time_based --runtime=20 --rate=4m,4m --verify=xxhash --verify_fatal=1 \
		--verify_state_save=0 --output="$TMP/fio$i" &
	FIOS+=($!)
done
sleep 2
job
took=$(figure took)
for pid in "${FIOS[@]}"; do
	wait "$pid" || fail "fio: $(cat "$TMP"/fio*)"
done
of() { weft pool donors --json | jq -r --arg n "$1" ".donors[] | select(.donor == \$n) | $2"; }
(($(of other .regions) > 0)) || fail "nothing moved: $(weft pool donors)"
! dmesg 2>/dev/null | tail -n 50 | grep -q "Memory cgroup out of memory.*weft-test-$$" ||
	fail "somebody was killed"
python3 -c "
late, took, alone = $(figure late), $took, $alone
print('it had its memory at most %.2f s late, and took %.3f of the processor time' %
	(late, took / alone))
raise SystemExit(not (late < 5 and took < 1.25 * alone))" || fail "too slow"
weft pool audit >"$TMP/audit" || fail "no audit"
grep -q '  idle  leaves ' "$TMP/audit" || fail "the audit has no move: $(<"$TMP/audit")"
! grep '  lost ' "$TMP/audit" || fail "something was lost"
