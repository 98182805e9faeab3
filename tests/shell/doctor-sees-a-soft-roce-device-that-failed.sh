# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# processors: 2
# A soft-RoCE device whose link went down under a connection is active and makes no connections:
# weft doctor says so, and its fix cures the device.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq

in_testbed --timeout 350 <<'END'
rdma_check() { weft doctor --json | jq -r '.checks[] | select(.check == "RDMA")'; }
attach() \
	{ timeout 60 weft attach "weft://$RDMA_IP:$PORT/r" --socket "$TMP/s" --lanes 1 --transport "$1"; }
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=16M
[[ $(rdma_check | jq -r .state) = ok ]] || fail "before: $(rdma_check)"
attach auto
ip link set rdma0 down
sleep 3
ip link set rdma0 up
sleep 3
timeout 60 weft detach --force r || :
[[ $(cat /sys/class/infiniband/rxe0/ports/1/state) = *ACTIVE ]] || fail "the port is not active"
if attach rdma; then fail "it works: this shows nothing"; fi
rdma_check
[[ $(rdma_check | jq -r .state) = missing ]] || fail "doctor does not see it"
fix=$(rdma_check | jq -r .fix)
[[ $fix = "rdma link delete rxe0 && rdma link add rxe0 type rxe netdev rdma0 "* ]] ||
	fail "the fix: $fix"
stop_donor || :
timeout 120 bash -c "$fix" || fail "the fix fails"
sleep 1
rdma_check
[[ $(rdma_check | jq -r .state) = ok ]] || fail "after: $(rdma_check)"
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=16M
attach rdma || fail "it is not cured"
weft detach r
END
