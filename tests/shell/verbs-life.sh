# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# The verbs transport over soft-RoCE when things go wrong: a donor stopped, killed or revoked, peers
# that break the protocol, an interface that goes down, a device that is removed.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 800 --memory 5G -- "$WEFT_BUILD/tests/conformance/verbs-life" \
	"$WEFT_BUILD/tests/conformance/verbs-hostile" <<'END'
life=$1
timeout 250 "$life" || exit 1
timeout 250 "$2" || exit 6
timeout 60 "$life" interface || exit 2
# The management queue pair of rxe stays in the error state after that: the device is made anew.
ip link set rdma0 up
timeout 60 rdma link del rxe0 || exit 3
rdma link add rxe0 type rxe netdev rdma0
for ((i = 0; i < 100; i++)); do
	! cat /sys/class/infiniband/rxe0/ports/1/gids/* 2>/dev/null | grep -q ffff:0a09 || break
	sleep 0.1
done
timeout 60 "$life" device || exit 4
for ((i = 0; i < 200; i++)); do
	[[ -e /sys/class/infiniband/rxe0 ]] || break
	sleep 0.1
done
[[ ! -e /sys/class/infiniband/rxe0 ]] || exit 5
END
