# SPDX-License-Identifier: MIT
# tier: long
# timeout: 300
# processors: 2
# Two machines: commands run on the other one with their outputs and status; the RDMA link can fail
# while TCP goes on; a machine can die at once, and the survivor is told.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

# shellcheck disable=SC2016
"$WEFT_SRC/tests/testbed/run" --nodes 2 --timeout 200 -- bash -euo pipefail -c '
	until_true() { for ((i = 0; i < 50; i++)); do "$@" && return; sleep 0.05; done; echo "in vain: $*"; return 1; }
	reaches() { ping -q -c 1 -W 1 "$1"; }
	status=0
	node2 "echo out; echo err >&2; exit 9" >/tmp/out 2>/tmp/err || status=$?
	[[ $status = 9 && $(cat /tmp/out) = out && $(cat /tmp/err) = err ]]
	[[ $(node2 printf "%s|" "a  b" "$PEER") = "a  b|node2|" ]]
	[[ $(node2 hostname) = node2 && $(node2 "echo \$PEER_RDMA_IP") = "$RDMA_IP" ]]
	node2 sleep 1000 &
	until_true node2 pidof sleep
	kill $!
	! wait $!
	! node2 pidof sleep

	reaches "$PEER_RDMA_IP"
	monitor2 set_link rdma off
	until_true node2 grep -qx 0 /sys/class/net/rdma0/carrier
	! reaches "$PEER_RDMA_IP"
	reaches "$PEER_TCP_IP"
	monitor2 set_link rdma on
	until_true reaches "$PEER_RDMA_IP"

	node2 sleep 1000 &
	monitor2 quit
	status=0
	wait $! || status=$?
	[[ $status = 255 ]]
	! reaches "$PEER_TCP_IP"
	echo survived
' >"$TMP/log" 2>&1 || fail "$(cat "$TMP/log")"
grep -qx survived "$TMP/log" || fail "$(cat "$TMP/log")"
