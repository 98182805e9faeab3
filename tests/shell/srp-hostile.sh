# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# Hostile initiators: IUs that are none, buffers that are not there, more commands than credits, a
# storm of task management, logins by the thousand.  The donor stays, keeps nothing of theirs, and
# touches nothing outside of their region, and a good initiator beside them goes on.
# WEFT_SRP_HOSTILE: how many of which, in place of these.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio cmp

phases=${WEFT_SRP_HOSTILE:-malformed=10000 buffers=300 credits=20 tasks=3000 logins=1000}
in_testbed --timeout 880 --memory 2G -- "$WEFT_BUILD/tests/srp-hostile" "$phases" <<'END'
. tests/srp.sh
srp_modules
start_donor --listen 127.0.0.1:0 --srp "$RDMA_IP:5555" --allow-insecure --memory r=32M \
	--memory evil=1M
srp_login "$(srp_line r)" || fail "no login"
[[ $(srp_line evil) =~ id_ext=([0-9a-f]*),ioc_guid=([0-9a-f]*) ]] || fail "no line"
ids=("${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}")
good() {
	while [[ ! -e $TMP/enough ]]; do
		srp_fio --size=16M --rw=randrw --bs=4k --time_based --runtime=5 --verify_backlog=32
	done
}
threads() { ls "/proc/$DONOR_PID/task" | wc -l; }
files() { ls "/proc/$DONOR_PID/fd" | wc -l; }
as_before() { (($(threads) <= before[0] && $(files) <= before[1])); }
before=("$(threads)" "$(files)")
seed=$RANDOM
echo "seed $seed, $(threads) threads, $(files) descriptors"
for what in $2; do
	rm -f "$TMP/enough"
	good &
	fio=$! start=$SECONDS
	timeout 600 "$1" "$RDMA_IP" 5555 "${ids[@]}" "${what%=*}" "${what#*=}" "$seed" ||
		fail "$what: $? $(tail -n 20 "$DONOR_LOG")"
	echo "$what: $((SECONDS - start)) s"
	touch "$TMP/enough"
	wait $fio || fail "the good initiator, beside $what: $(cat "$TMP/fio")"
	kill -0 "$DONOR_PID" || fail "the donor is gone: $(tail -n 40 "$DONOR_LOG")"
	wait_for -t 30 as_before
done
srp_logout
kill "$DONOR_PID"
wait "$DONOR_PID" || fail "the donor's end: $?"
END
grep 'seed\|malformed\|buffers\|credits\|tasks\|logins' "$TMP/output"
