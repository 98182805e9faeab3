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
fact sys/fs/cgroup/memory.max 2147483648
fact sys/fs/cgroup/memory.current 1073741824
fact proc/self/status 'CapEff: 0000000000000000'
fact proc/self/limits 'Max locked memory         8388608              8388608              bytes'
fact sys/class/infiniband/mlx5_0/ports/1/state '4: ACTIVE'
fact sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages 8
fact sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 3
fact sys/devices/system/node/node0/cpulist 0
fact sys/devices/system/node/node1/cpulist 1
weft doctor --sysroot "$TMP/root" >"$TMP/out" || fail "exit status $?"
expect '^ok +memory +1 GiB can be lent'
expect '^warn +memlock +only 8 MiB'
expect 'fix: .*/etc/security/limits.d'
expect '^ok +RDMA +mlx5_0 \(first port: ACTIVE\)'
expect '^ok +huge pages 2M +3 of 8'
expect '^ok +NUMA +2 nodes'

fact proc/self/limits 'Max locked memory         unlimited            unlimited            bytes'
weft doctor --sysroot "$TMP/root" >"$TMP/out"
expect '^ok +memlock'
