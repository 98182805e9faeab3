# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# presets: dev asan
# processors: 2
# Over RDMA, with 1 % of the packets lost each way: a bridge that is superseded with writes in
# flight, and one that was stopped meanwhile and goes on, change nothing after the next one was
# attached, and learn that they are stale.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq qemu-io

in_testbed --nodes 2 --timeout 350 <<'END'
uri=weft://$PEER_RDMA_IP:10809/r socket="nbd+unix:///?socket=$TMP/s" \
	next="nbd+unix:///?socket=$TMP/s2"
node2 "WEFT_RUN_DIR=/run weft-serve --listen 0.0.0.0 --allow-insecure --memory r=8M" \
	>"$TMP/donor.log" 2>&1 &
listed() { timeout 5 weft list "weft://$PEER_TCP_IP" | grep -q rdma; }
wait_for -t 30 listed
tc qdisc replace dev rdma0 root netem loss 1%
node2 tc qdisc replace dev rdma0 root netem loss 1%

field() { weft status r --json | jq -r ".attachments[0].$1"; }
writing() { [[ $(field requests.write) -gt 40 ]]; }
stale() { [[ $(field state) = stale ]]; }
next_one() { WEFT_RUN_DIR=$TMP/run2 weft "$@"; }
for way in running stopped; do
	weft attach "$uri" --socket "$TMP/s" --transport rdma --lanes 1 >"$TMP/out" ||
		fail "$(cat "$TMP/out")"
	fio --name=w --ioengine=nbd --uri="$socket" --rw=randwrite --bs=64k --iodepth=8 --size=8M \
		--time_based --runtime=120 \
		--buffer_pattern=0x11 >"$TMP/fio" 2>&1 &
	fio=$!
	wait_for -t 60 writing
	pid=$(field pid)
	[[ $way = running ]] || kill -STOP "$pid"
	rm -rf "$TMP/run2"
	mkdir -m 700 "$TMP/run2"
	cp "$WEFT_RUN_DIR/attach-r.json" "$TMP/run2"
	next_one attach "$uri" --socket "$TMP/s2" --transport rdma --lanes 1 >"$TMP/out2" ||
		fail "not taken over: $(cat "$TMP/out2")"
	qemu-io -f raw "$next" -c 'write -P 0x22 0 8M' >/dev/null || fail "cannot write"
	[[ $way = running ]] || kill -CONT "$pid"
	wait_for -t 60 stale
	! wait $fio || fail "fio saw no error"
	qemu-io -f raw "$next" -c 'read -P 0x22 0 8M' >"$TMP/read" || fail "$(cat "$TMP/read")"
	! grep -q 'Pattern verification failed' "$TMP/read" || fail "an old write landed"
	node2 tc -s qdisc show dev rdma0 | grep -q 'dropped [1-9]' || fail "nothing was lost"
	! weft detach --force r 2>/dev/null || fail "it was lost, and detach did not say so"
	next_one detach r
	echo "== $way: $(grep -o 'transport rdma' "$TMP/out2")"
done
if dmesg | grep -E 'WARNING|BUG|Oops'; then fail "the kernel has complaints"; fi
END
