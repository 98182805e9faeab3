# SPDX-License-Identifier: MIT
# tier: long
# timeout: 700
# processors: 2
# weft attach at an SRP target on another machine, weft's own: every byte right over a link that
# loses 1 % of the packets each way; and with --assume-stable no error and no wrong byte while the
# target is killed and started again, twice, on that link.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq nbdcopy cmp

in_testbed --nodes 2 --timeout 680 <<'END'
. tests/srp.sh
socket="nbd+unix:///?socket=$TMP/s" DONOR_LOG=$TMP/donor
cleanup_add 'cat "$DONOR_LOG"; weft status --explain | tail -n 40'
donor() {
	node2 "mkdir -p -m 700 /run/donor
		WEFT_RUN_DIR=/run/donor exec weft-serve --listen 0.0.0.0:10809 --allow-insecure \
		--srp $PEER_RDMA_IP:5555 --memory r=24M" >"$DONOR_LOG" 2>&1 &
	DONOR=$!
	wait_for -t 120 grep -qx ready "$DONOR_LOG"
}
verify() { # OPTION…
	timeout 400 fio --name=v --ioengine=nbd --uri="$socket" --iodepth=8 --rw=randwrite \
		--bssplit=4k/60:64k/35:512k/5 --verify=crc32c --verify_fatal=1 --group_reporting \
		--minimal "$@" >"$TMP/fio" 2>&1 || fail "fio $*: $(cat "$TMP/fio")"
}
count() { weft status r --json | jq ".attachments[0].$1"; }
donor
[[ $(srp_line r) =~ id_ext=([0-9a-f]*),ioc_guid=([0-9a-f]*) ]] || fail "no line"
uri=srp://$PEER_RDMA_IP:5555/${BASH_REMATCH[1]}.${BASH_REMATCH[2]}
weft attach "$uri" --name r --socket "$TMP/s" --lanes 2 --assume-stable --timeout 20 \
	--dead-timeout 120 | tee "$TMP/out"
grep -q 'over srp rxe0 gid .* WEFT' "$TMP/out" || fail "no path"
for node in "" node2; do $node tc qdisc replace dev rdma0 root netem loss 1%; done

echo "== 1 % loss"
verify --size=8M --numjobs=2 --offset_increment=12M --do_verify=1
for node in "" node2; do $node tc -s qdisc show dev rdma0; done | tee "$TMP/tc"
[[ $(grep -c 'dropped [1-9]' "$TMP/tc") = 2 ]] || fail "nothing was lost"

echo "== the target is killed and started again"
load() {
	until [[ -e $TMP/enough ]]; do
		verify --size=8M --numjobs=2 --offset_increment=12M --do_verify=0 \
			--verify_backlog=32 --time_based --runtime=10
	done
}
load &
load=$!
is_back() { [[ $(weft status r --json | jq -r '.attachments[0].state') = ready ]]; }
for round in 1 2; do
	sleep 5 # of load
	kill -0 $load || fail "fio has ended: $(cat "$TMP/fio")"
	before=$(count reconnects)
	node2 pkill -KILL -x weft-serve
	wait "$DONOR" || :
	donor
	[[ $uri = *"$(srp_line r | grep -o 'id_ext=[0-9a-f]*' | cut -d = -f 2)"* ]] ||
		fail "another line after the restart"
	reconnected() { (($(count reconnects) > before)) && is_back; }
	SECONDS=0
	wait_for -t 120 reconnected
	echo "back $SECONDS s after the target"
done
sleep 3 # of load
: >"$TMP/enough"
wait $load || fail "fio: $(cat "$TMP/fio")"
for node in "" node2; do $node tc qdisc del dev rdma0 root; done
nbdcopy "$socket" "$TMP/ours"
weft detach r
wait_for -t 30 node2 nbdcopy nbd://127.0.0.1:10809/r /tmp/theirs
node2 cat /tmp/theirs | cmp - "$TMP/ours" || fail "the target has other bytes"
node2 pkill -TERM -x weft-serve
wait "$DONOR" || fail "the donor's end: $?"
END
grep '^back ' "$TMP/output"
