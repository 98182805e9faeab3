# SPDX-License-Identifier: MIT
# timeout: 400
# presets: only dev asan
# processors: 2
# On a machine of two NUMA nodes with its network card on the second: lanes run on that one's
# processors, with buffers in its memory, as weft doctor says; the rest of the bridge is free; what
# the user allows and prefers is kept; lanes follow the connection to another card.  The thread
# sanitizer's own memory would be counted too.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq perl taskset

in_testbed --numa --timeout 300 <<'END'
[[ $(</sys/class/net/rdma0/device/../local_cpulist) = 1 ]] || fail "no card on the second node"
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=64M
uri=weft://$RDMA_IP:$PORT/r
pid() { weft status --json | jq '.attachments[0].pid'; }
state() { weft status --json | jq -r ".attachments[0].$1"; }
cpus_of() { # COMM-PATTERN: of threads of that name, each once
	local task
	for task in /proc/"$(pid)"/task/*; do
		# shellcheck disable=SC2053
		[[ $(<"$task/comm") != $1 ]] || sed -n 's/^Cpus_allowed_list:\t//p' "$task/status"
	done | sort -u
}
pages_of_buffers() { # NODE: of mappings of at least 5 MiB
	awk -v node="N$1=" '/ anon=/ { n = a = 0
		for (i = 3; i <= NF; i++) { if (index($i, node) == 1) n = substr($i, 4); if (index($i, "anon=") == 1) a = substr($i, 6) }
		if (a + 0 >= 1280) sum += n } END { print sum + 0 }' "/proc/$(pid)/numa_maps"
}
attached() { # PROGRAM… [weft attach] OPTION…
	"$@" >"$TMP/out" || fail "$*: $(cat "$TMP/out")"
	weft status | grep 'lanes '
}
assert() { # WHAT WANTED GOT
	[[ $3 = "$2" ]] ||
		fail "$1: $3, not $2; $(weft status); $(grep -E "anon=[0-9]{4}" "/proc/$(pid)/numa_maps")"
}

echo "== near the card"
attached weft attach "$uri" --socket "$TMP/s" --transport rdma --lanes 2
grep -qx '  lanes near rdma0: node 1, processor 1' < <(weft status) || fail "$(weft status)"
assert "lanes" 1 "$(cpus_of 'weft-lane-*')"
assert "other threads" 0-1 "$(cpus_of 'weft-attach')"
assert "buffers on node 1" 2560 "$(pages_of_buffers 1)"
assert "buffers on node 0" 0 "$(pages_of_buffers 0)"
grep -qx 'lanes for rdma0 belong on node 1, processor 1' < <(weft doctor --topology) ||
	fail "$(weft doctor --topology)"
[[ $(state placing.processors) = \
	$(weft doctor --topology --json | jq -r '.devices[] | select(.name == "rdma0").lanes.processors') ]] ||
	fail "status and doctor do not agree"
weft detach r

echo "== a cache"
attached weft attach "$uri" --socket "$TMP/s" --transport rdma --lanes 1 --cache 32M
assert "cache on node 1" $((1280 + 8192)) "$(pages_of_buffers 1)"
weft detach r

echo "== what the user allows"
attached taskset -c 0 weft attach "$uri" --socket "$TMP/s" --transport rdma --lanes 1
assert "lanes" 0 "$(cpus_of 'weft-lane-*')"
assert "the reason" "this process may not run near rdma0" "$(state placing.why)"
weft detach r

echo "== where the user wants memory"
# As numactl --membind=0: set_mempolicy(MPOL_BIND, node 0).
attached perl \
	-e \
	'my $nodes = pack("Q", 1); syscall(238, 2, $nodes, 65) == 0 or die "set_mempolicy: $!"; exec @ARGV' \
	weft attach "$uri" --socket "$TMP/s" --transport rdma --lanes 1
assert "lanes" 1 "$(cpus_of 'weft-lane-*')"
assert "buffers on node 0" 1280 "$(pages_of_buffers 0)"
weft detach r

echo "== to this machine itself over TCP"
attached weft attach "$uri" --socket "$TMP/s" --transport tcp --lanes 2
assert "lanes" 0-1 "$(cpus_of 'weft-lane-*')"
assert "the reason" "the connection goes through no network card" "$(state placing.why)"
weft detach r

stop_donor || fail "the donor's exit status: $?"

echo "== another card comes, and is lost"
lanes_on() { [[ $(cpus_of 'weft-lane-*') = "$1" ]]; }
rdma link del rxe0
ip link add soft0 type dummy
ip link set soft0 mtu 4200 up
ip addr add 10.66.0.1/24 dev soft0
rdma link add rxe9 type rxe netdev soft0
start_donor --listen 0.0.0.0:0 --allow-insecure --memory r=64M
attached weft attach "weft://$RDMA_IP:$PORT/r" --socket "$TMP/s" --lanes 2
assert "the transport" rdma "$(state transport)"
assert "the reason" "nothing says what soft0 hangs on" "$(state placing.why)"
# rxe waits until everybody who has it open is gone: in the background.
rdma link del rxe9 </dev/null >/dev/null 2>&1 &
over_tcp() { [[ $(state transport) = tcp ]]; }
wait_for -t 60 over_tcp
rdma link add rxe0 type rxe netdev rdma0
wait_for -t 60 lanes_on 1
assert "the card" rdma0 "$(state placing.device)"
ip link set rdma0 down
wait_for -t 60 lanes_on 0-1
assert "the reason" "the connection goes through no network card" "$(state placing.why)"
weft detach r
stop_donor || fail "the donor's exit status: $?"
END
