# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# processors: 2
# A network on which an answer over RDMA takes more than a second, and those over TCP are slow as
# well: RDMA is waited for.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --nodes 2 --timeout 300 <<'END'
node2 "mkdir -p -m 700 /run/donor; WEFT_RUN_DIR=/run/donor exec weft-serve --listen 0.0.0.0 --allow-insecure --memory r=16M" >"$TMP/donor.log" 2>&1 &
listed() { timeout 5 weft list "weft://$PEER_TCP_IP" | grep -q "rdma:10809:$PEER_RDMA_IP"; }
wait_for -t 60 listed
tc qdisc add dev rdma0 root netem delay 700ms
tc qdisc add dev tcp0 root netem delay 150ms
weft attach "weft://$PEER_TCP_IP/r" --socket "$TMP/s" --lanes 1 | tee "$TMP/out"
grep -q 'transport rdma (auto: the donor offers' "$TMP/out" ||
	fail "not over RDMA: $(cat "$TMP/out")"
tc qdisc del dev rdma0 root
tc qdisc del dev tcp0 root
weft detach r
END
