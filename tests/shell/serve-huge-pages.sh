# SPDX-License-Identifier: MIT
# serial
# --hugepages takes the memory from the pool, says how to fill it when it is too small, and outlives
# a crash.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io

pool=/sys/kernel/mm/hugepages/hugepages-2048kB
[[ -w $pool/nr_hugepages ]] || skip "no pool of 2 MiB pages that this user may fill"
before=$(<$pool/nr_hugepages)
cleanup_add "echo $before >$pool/nr_hugepages"
free() {
	echo $(($(<$pool/free_hugepages) - $(<$pool/resv_hugepages)))
}

status=0
weft-serve --listen 127.0.0.1:0 --memory "a=$((($(free) + 1) * 2))M" \
	--hugepages 2M >"$TMP/log" 2>&1 || status=$?
[[ $status = 1 ]] || fail "exit status $status: $(cat "$TMP/log")"
grep -q 'reserve them first: echo [0-9]* > /sys/kernel/mm/hugepages' "$TMP/log" ||
	fail "$(cat "$TMP/log")"

echo $((before + 8)) >$pool/nr_hugepages
(($(free) >= 8)) || skip "the kernel has no 8 huge pages to give"
was_free=$(free)
start_donor --memory a=15M --hugepages 2M # rounded up to 8 pages
grep -q 'memory, 16 MiB in pages of 2 MiB' "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
(($(free) == was_free - 8)) || fail "not taken up front: $(free) of $was_free are free"
qemu-io -f raw "nbd://127.0.0.1:$PORT/a" -c 'write -P 9 0 16M' -c 'write -z -u 2M 2M' \
	-c 'discard 4M 2M' >/dev/null
stop_donor KILL || :
start_donor --memory a=15M --hugepages 2M
grep -q '^recovered' "$DONOR_LOG" || fail "not recovered"
qemu-io -f raw "nbd://127.0.0.1:$PORT/a" -c 'read -P 9 0 2M' -c 'read -P 0 2M 2M' \
	-c 'read -P 9 6M 10M' >"$TMP/log" ||
	fail "$(cat "$TMP/log")"
! grep -q failed "$TMP/log" || fail "$(cat "$TMP/log")"
stop_donor
all_free() {
	(($(free) == was_free))
}
wait_for all_free
