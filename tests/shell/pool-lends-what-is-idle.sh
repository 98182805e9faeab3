# SPDX-License-Identifier: MIT
# A donor lends all but its reserve.  When a job of its own machine needs memory, nothing new is
# lent, and regions move to another donor while they are used.  With a deadline and nowhere to go
# they are given up, and the log says who lost what.
# timeout: 240
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
need_tool jq python3 qemu-io
memory_group $((512 << 20))

# donor_in_group NAME OPTION…: a donor of the pool whose machine has the group's memory.
donor_in_group() {
	in_memory_group weft-serve --listen 127.0.0.1:0 --pool "$WEFT_POOL" --pool-name "$1" \
		--lend idle --reserve 128M "${@:2}" >"$TMP/$1.log" 2>&1 &
	wait_for -t 60 has_donor "$1"
}

# A job of 280 MiB of that machine; ends with end_job.
job() {
	in_memory_group python3 -c 'import sys, time
block = bytearray(280 << 20)
block[::4096] = b"x" * len(block[::4096])
print("has it", flush=True)
sys.stdin.read()' <"$TMP/fifo" >"$TMP/job" &
	JOB=$!
	exec 7>"$TMP/fifo"
}
end_job() {
	exec 7>&-
	wait "$JOB" || fail "the job: $?"
}
mkfifo "$TMP/fifo"
of() { weft pool donors --json | jq -r --arg n "$1" ".donors[] | select(.donor == \$n) | $2"; }
is() { [[ $(of "$1" "$2") = "$3" ]]; }
at() { [[ $(weft pool leases "$1" --json | jq -r '.regions[].donor') = "$2" ]]; }

start_pool
donor_in_group idle
lent=$(of idle .lent_bytes)
((lent > 200 << 20 && lent <= 384 << 20)) || fail "it lends $lent"

echo "a job needs memory, and there is another donor"
weft pool alloc a --size 150M >/dev/null || fail "alloc"
weft attach pool:a --socket "$TMP/s" --name box || fail "attach"
qemu-io -f raw -c 'write -P 7 0 64M' -c flush "nbd+unix:///?socket=$TMP/s" >/dev/null
pool_donor other 256M
job
wait_for -t 30 grep -q "has it" "$TMP/job"
wait_for -t 60 is idle .pressed true
wait_for -t 120 at a other
qemu-io -f raw -c 'read -P 7 0 64M' "nbd+unix:///?socket=$TMP/s" | grep -q "read 67108864" ||
	fail "the borrower has other bytes"
! gone "$JOB" || fail "the job was killed"
grep -q "nothing new is lent" "$TMP/idle.log" || fail "$(<"$TMP/idle.log")"
wait_for is idle .regions 0
end_job
wait_for -t 60 is idle .pressed false
weft detach box >/dev/null
weft pool release a >/dev/null

echo "nowhere to go, and a deadline"
weft pool cordon other >/dev/null
kill "$(weft status --json | jq '.donors[] | select(.pool.donor == "idle").pid')"
wait_for -t 60 is idle .silent true
donor_in_group late --reclaim-deadline 2
weft pool alloc b --size 150M >/dev/null || fail "alloc"
weft attach pool:b --socket "$TMP/s" --name loser --dead-timeout 1 || fail "attach"
job
wait_for -t 30 grep -q "has it" "$TMP/job"
said="region 'pool-.*' (150 MiB), which 'loser' had attached and loses, is given up"
wait_for -t 60 grep -q "$said" "$TMP/late.log"
lost() { weft pool leases b --json | jq -e '.state == "lost"' >/dev/null; }
wait_for lost
! qemu-io -f raw -c 'read 0 4096' "nbd+unix:///?socket=$TMP/s" 2>/dev/null | grep -q "read 4096" ||
	fail "the borrower reads what is gone"
end_job
weft detach --force loser >/dev/null || :
weft pool release b >/dev/null || fail "release"
