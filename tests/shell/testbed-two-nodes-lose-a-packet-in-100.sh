# SPDX-License-Identifier: MIT
# tier: long
# timeout: 300
# processors: 2
# Two machines: RDMA between them works although the link loses 1 % of the packets each way.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

# shellcheck disable=SC2016
"$WEFT_SRC/tests/testbed/run" --nodes 2 --timeout 200 -- bash -euo pipefail -c '
	netem="tc qdisc add dev rdma0 root netem loss 1% seed 1 || tc qdisc add dev rdma0 root netem loss 1%"
	eval "$netem"
	node2 "$netem"
	node2 ibv_rc_pingpong -d rxe0 -g 1 -m 4096 -s 16384 -n 400 &
	until node2 "ss -ltn" | grep -q :18515; do :; done
	ibv_rc_pingpong -d rxe0 -g 1 -m 4096 -s 16384 -n 400 "$PEER_TCP_IP"
	wait $!
	for node in 1 2; do
		((node == 1)) && tc -s qdisc show dev rdma0 || node2 tc -s qdisc show dev rdma0
	done
' >"$TMP/log" 2>&1 || fail "$(cat "$TMP/log")"
[[ $(grep -c 'dropped [1-9]' "$TMP/log") = 2 ]] || fail "nothing was lost: $(cat "$TMP/log")"
