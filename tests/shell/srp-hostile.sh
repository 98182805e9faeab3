# SPDX-License-Identifier: MIT
# tier: soak
# timeout: 3600
# presets: dev asan
# processors: 2
# Hostile initiators: IUs that are none, buffers that are not there, more commands than credits, a
# storm of task management, logins by the hundred.  The donor stays, nothing outside of their region
# is touched, and a good initiator beside them goes on.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio cmp

in_testbed --timeout 3500 --memory 2G -- "$WEFT_BUILD/tests/srp-hostile" <<'END'
. tests/srp.sh
srp_modules
start_donor --listen 127.0.0.1:0 --srp "$RDMA_IP:5555" --allow-insecure --memory r=32M \
	--memory evil=1M
srp_login "$(srp_line r)" || fail "no login"
good() { srp_fio --size=16M --rw=randrw --bs=4k --time_based --runtime=20 --verify_backlog=32; }
[[ $(srp_line evil) =~ id_ext=([0-9a-f]*),ioc_guid=([0-9a-f]*) ]] || fail "no line"
ids=("${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}")
seed=$RANDOM
echo "seed $seed"
for what in "malformed 10000" "buffers 300" "credits 20" "tasks 3000" "logins 1000"; do
	good &
	fio=$!
	# shellcheck disable=SC2086
	timeout 600 "$1" "$RDMA_IP" 5555 "${ids[@]}" $what "$seed" ||
		fail "$what: $? $(tail -n 20 "$DONOR_LOG")"
	wait $fio || fail "the good initiator, beside $what: $(cat "$TMP/fio")"
	kill -0 "$DONOR_PID" || fail "the donor is gone: $(tail -n 40 "$DONOR_LOG")"
done
srp_logout
kill "$DONOR_PID"
wait "$DONOR_PID" || fail "the donor's end: $?"
END
grep 'malformed\|buffers\|credits\|tasks\|logins' "$TMP/output"
