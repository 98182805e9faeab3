# SPDX-License-Identifier: MIT
# timeout: 300
# processors: 2
# In one machine: RDMA over rxe with an MTU of 4096, by hand and by rdma_cm; /dev/nbd0 on an nbdkit;
# ublk and netem.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

# shellcheck disable=SC2016
"$WEFT_SRC/tests/testbed/run" --timeout 200 -- bash -euo pipefail -c '
	until_true() { for ((i = 0; i < 200; i++)); do "$@" && return; sleep 0.05; done; echo "in vain: $*"; return 1; }
	listens() { ss -ltn | grep -q ":$1 "; }
	read_latency() { ib_read_lat -R -d rxe0 -s 4096 -n 100 "$RDMA_IP" >/tmp/lat 2>&1; }
	cm_listens() { rdma resource show cm_id | grep -q "state LISTEN"; }

	ibv_rc_pingpong -d rxe0 -g 1 -m 4096 -n 100 >/dev/null &
	until_true listens 18515
	ibv_rc_pingpong -d rxe0 -g 1 -m 4096 -n 100 "$RDMA_IP"
	wait $!

	ib_read_lat -R -d rxe0 -s 4096 -n 100 >/dev/null 2>&1 &
	until_true cm_listens
	# It is shown as listening a moment before it is asked.
	until_true read_latency
	cat /tmp/lat
	wait $!
	grep -q "Mtu *: 4096" /tmp/lat

	nbdkit -U /tmp/nbd.sock memory 64M
	nbd-client -unix /tmp/nbd.sock /dev/nbd0 -b 4096
	head -c 4M /dev/urandom >/tmp/data
	dd if=/tmp/data of=/dev/nbd0 bs=1M oflag=direct
	dd if=/dev/nbd0 bs=1M count=4 iflag=direct | cmp - /tmp/data
	nbd-client -d /dev/nbd0

	[[ -c /dev/ublk-control ]]
	tc qdisc add dev rdma0 root netem delay 1ms
' >"$TMP/log" 2>&1 || fail "$(cat "$TMP/log")"
