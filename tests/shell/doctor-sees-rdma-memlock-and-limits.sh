# SPDX-License-Identifier: MIT
# What other machines have, from a copy of their /proc and /sys.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

fact() { # PATH CONTENT
	mkdir -p "$TMP/root/${1%/*}"
	echo "$2" >"$TMP/root/$1"
}
expect() { # PATTERN
	grep -qE "$1" "$TMP/out" || fail "no '$1' in: $(cat "$TMP/out")"
}
fact proc/sys/kernel/osrelease 6.1.0-1-amd64
fact proc/meminfo 'MemAvailable: 104857600 kB'
fact proc/self/cgroup '0::/'
fact sys/fs/cgroup/memory.max 2147483648
fact sys/fs/cgroup/memory.current 1073741824
fact proc/self/status 'CapEff: 0000000000000000'
fact proc/self/limits 'Max locked memory         8388608              8388608              bytes'
port=sys/class/infiniband/mlx5_0/ports/1
fact $port/state '4: ACTIVE'
fact $port/link_layer Ethernet
fact sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages 8
fact sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 3
fact sys/devices/system/node/node0/cpulist 0
fact sys/devices/system/node/node1/cpulist 1
weft doctor --sysroot "$TMP/root" >"$TMP/out" || fail "exit status $?"
expect '^ok +memory +1 GiB can be lent \(the memory limit of cgroup /\)'
expect '^warn +memlock +only 8 MiB'
expect 'fix \(as root\): .*/etc/security/limits.d'
expect '^ok +RDMA +mlx5_0 port 1: ACTIVE, RoCE$'
expect '^missing +RDMA address +mlx5_0 port 1 has no IP address'
expect '^missing +RDMA access +no RDMA device has its library installed'
expect 'fix \(as root\): apt-get install ibverbs-providers'
expect '^ok +huge pages 2M +3 of 8'
expect '^ok +NUMA +2 nodes'

fact proc/self/limits 'Max locked memory         unlimited            unlimited            bytes'
weft doctor --sysroot "$TMP/root" >"$TMP/out"
expect '^ok +memlock'

echo "an address that RoCE v2 carries, among others that it does not"
gid() { # INDEX GID TYPE
	fact "$port/gids/$1" "$2"
	fact "$port/gid_attrs/types/$1" "$3"
	fact "$port/gid_attrs/ndevs/$1" eth7
}
gid 0 fe80:0000:0000:0000:5054:00ff:fe77:0901 'RoCE v2'
gid 1 0000:0000:0000:0000:0000:ffff:0a09:0001 'IB/RoCE v1'
gid 2 0000:0000:0000:0000:0000:ffff:0a09:0001 'RoCE v2'
fact sys/class/net/eth7/mtu 1500
fact etc/libibverbs.d/mlx5.driver 'driver mlx5'
fact sys/class/infiniband_verbs/uverbs0/ibdev mlx5_0
fact dev/infiniband/uverbs0 ''
weft doctor --sysroot "$TMP/root" >"$TMP/out"
expect '^ok +RDMA address +mlx5_0 port 1: 10.9.0.1 on eth7 \(RoCE v2, gid 2\)'
expect '^warn +RDMA MTU +eth7 has an MTU of 1500: packets of RDMA hold 1024 bytes'
expect 'fix \(as root\): ip link set dev eth7 mtu 4200'
expect '^ok +RDMA access'
fact sys/class/net/eth7/mtu 9000
weft doctor --sysroot "$TMP/root" >"$TMP/out"
expect '^ok +RDMA MTU'

echo "a port that is down, an InfiniBand port without an address"
fact $port/state '1: DOWN'
weft doctor --sysroot "$TMP/root" >"$TMP/out"
expect '^warn +RDMA +mlx5_0 port 1: DOWN, RoCE: weft uses TCP'
fact sys/class/infiniband/mlx5_1/ports/1/state '4: ACTIVE'
fact sys/class/infiniband/mlx5_1/ports/1/link_layer InfiniBand
weft doctor --sysroot "$TMP/root" >"$TMP/out"
expect '^ok +RDMA +mlx5_1 port 1: ACTIVE, InfiniBand; mlx5_0 port 1: DOWN, RoCE'
expect '^missing +RDMA address +mlx5_1 port 1 has no IP interface'
fact sys/class/net/ib0/type 32
weft doctor --sysroot "$TMP/root" >"$TMP/out"
expect '^ok +RDMA address +mlx5_1 port 1: ib0 \(IPoIB\)'
