# SPDX-License-Identifier: MIT
# weft doctor --topology: where network devices are, and where lanes belong, on a machine of two
# packages with sub-NUMA clusters; and here.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

export HWLOC_XMLFILE=$WEFT_SRC/tests/support/topology.xml
weft doctor --topology >"$TMP/out"
diff - "$TMP/out" <<'END' || fail "another drawing"
machine: processors 0-15
  package 0: processors 0-7
    network interface eth0
    NUMA node 0: 64 GiB, processors 0-3
    NUMA node 1: 64 GiB, processors 4-7
  package 1: processors 8-15
    NUMA node 2: 64 GiB, processors 8-11
    NUMA node 3: 64 GiB, processors 12-15
      network interface ib0
      RDMA device mlx5_0
lanes for eth0 belong on nodes 0-1, processors 0-7
lanes for ib0 belong on node 3, processors 12-15
lanes for mlx5_0 belong on node 3, processors 12-15
END
weft doctor --topology --json | jq -e '.packages == 2 and .nodes == 4 and .processors == 16 and
	(.devices | map(.name)) == ["eth0", "ib0", "mlx5_0"] and .devices[0].lanes.nodes == "0-1" and
	.devices[2].lanes == {nodes: "3", processors: "12-15"}' >/dev/null ||
	fail "$(weft doctor --topology --json)"
unset HWLOC_XMLFILE
weft doctor --topology >"$TMP/out"
grep -q '^machine: processors ' "$TMP/out" || fail "this machine: $(cat "$TMP/out")"
! weft doctor --topology --sysroot "$TMP" 2>/dev/null || fail "two machines at once"
