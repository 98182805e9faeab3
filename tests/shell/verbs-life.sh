# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1200
# presets: dev asan
# processors: 2
# The verbs transport over soft-RoCE when things go wrong: a donor stopped, killed or revoked, peers
# that break the protocol, an interface that goes down, a device that is removed.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 1100 --memory 5G -- "$WEFT_BUILD/tests/conformance/verbs-life" \
	"$WEFT_BUILD/tests/conformance/verbs-hostile" <<'END'
life=$1
timeout 400 "$life" || fail "verbs-life: $?"
timeout 400 "$2" || fail "verbs-hostile: $?"
timeout 60 "$life" interface || fail "verbs-life interface: $?"
# The management queue pair of rxe stays in the error state after that: the device is made anew.
ip link set rdma0 up
timeout 60 rdma link del rxe0 || fail "rdma link del: $?"
rdma link add rxe0 type rxe netdev rdma0
for ((i = 0; i < 100; i++)); do
	! cat /sys/class/infiniband/rxe0/ports/1/gids/* 2>/dev/null | grep -q ffff:0a09 || break
	sleep 0.1
done
timeout 60 "$life" device || fail "verbs-life device: $?"
for ((i = 0; i < 200; i++)); do
	[[ -e /sys/class/infiniband/rxe0 ]] || break
	sleep 0.1
done
[[ ! -e /sys/class/infiniband/rxe0 ]] || fail "the device is still there"
END
