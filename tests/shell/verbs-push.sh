# SPDX-License-Identifier: MIT
# tier: long
# timeout: 500
# presets: dev asan
# processors: 2
# weft push and weft pull over RDMA: hashes come over the control connection, blocks go one-sided;
# of memory and of a staged file; so do questions about the mark of a region that is followed.  A
# push whose RDMA is lost goes on over TCP.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq cmp

in_testbed --timeout 400 --memory 2G <<'END'
truncate -s 24M "$TMP/lent"
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=32M --file "f=$TMP/lent"
random_file "$TMP/data" 20000017

pushed() { # REGION BYTES [TRANSPORT]
	weft push --json "$TMP/data" "weft://$RDMA_IP:$PORT/$1" >"$TMP/json" || fail "push to $1"
	jq -e --argjson n "$2" --arg transport "${3-rdma}" '.different_bytes == $n and
		.transport == $transport and .complete' "$TMP/json" || fail "$(cat "$TMP/json")"
}
for region in r f; do
	echo "== to $region"
	pushed "$region" 20000017
	pushed "$region" 0
	printf %s "$region" | dd of="$TMP/data" bs=1 seek=9000000 conv=notrunc status=none
	printf %s "$region" | dd of="$TMP/data" bs=1 seek=9100000 conv=notrunc status=none
	pushed "$region" 8192
	weft pull --json "weft://$RDMA_IP:$PORT/$region" "$TMP/copy" >"$TMP/json" || fail "pull"
	jq -e '.transport == "rdma"' "$TMP/json" || fail "$(cat "$TMP/json")"
	cmp -n 20000017 "$TMP/data" "$TMP/copy" || fail "$region is something else"
	rm "$TMP/copy"

	echo "== $region is followed"
	weft pull --watch --interval 0.1 --json "weft://$RDMA_IP:$PORT/$region" "$TMP/copy" \
		>"$TMP/followed" 2>"$TMP/err" &
	follower=$!
	unmarked() { grep -q unmarked "$TMP/followed"; }
	wait_for -t 60 unmarked
	for round in 1 2 3; do
		printf %s "$round" | dd of="$TMP/data" bs=1 seek=9000000 conv=notrunc status=none
		weft push --mark "$TMP/data" "weft://$RDMA_IP:$PORT/$region" || fail "push --mark"
		shown() { cmp -s -n 20000017 "$TMP/data" "$TMP/copy"; }
		wait_for -t 60 shown
	done
	kill -INT "$follower"
	wait "$follower" || fail "follower: $(cat "$TMP/err")"
	rm "$TMP/copy" "$TMP/copy.weft-pull"
done
cmp -n 20000017 "$TMP/data" "$TMP/lent" || fail "the file is something else"

echo "== RDMA is lost in the middle"
random_file "$TMP/data" 30000000
mkfifo "$TMP/pipe"
weft push --json "$TMP/pipe" "weft://$RDMA_IP:$PORT/r" >"$TMP/json" 2>"$TMP/err" &
pusher=$!
exec 3>"$TMP/pipe"
head -c 15000000 "$TMP/data" >&3
over_rdma() { weft status | grep -q 'region r: used by attachment .* over rdma'; }
wait_for over_rdma
# rxe waits until everybody who has it open is gone: in the background.
rdma link delete rxe0 </dev/null >/dev/null 2>&1 3>&- &
tail -c +15000001 "$TMP/data" >&3
exec 3>&-
wait "$pusher" || fail "the push did not go on: $(cat "$TMP/err")"
jq -e '.transport == "tcp" and .complete' "$TMP/json" || fail "$(cat "$TMP/json")"
weft pull "weft://$RDMA_IP:$PORT/r?transport=tcp" "$TMP/copy" >/dev/null || fail "pull"
cmp -n 30000000 "$TMP/data" "$TMP/copy" || fail "something else is there"
stop_donor
END
