# SPDX-License-Identifier: MIT
# Buffers of UDP that are too small for QUIC on a wide network, and a kernel without GSO and GRO.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_quic

fact() { # PATH CONTENT
	mkdir -p "$TMP/root/${1%/*}"
	echo "$2" >"$TMP/root/$1"
}
expect() { # PATTERN
	weft doctor --sysroot "$TMP/root" >"$TMP/out" || fail "exit status $?: $(cat "$TMP/out")"
	grep -qE "$1" "$TMP/out" || fail "no '$1' in: $(cat "$TMP/out")"
}
fact proc/meminfo 'MemAvailable: 1048576 kB'
fact proc/sys/kernel/osrelease 6.12.1-amd64
expect '^n/a +QUIC buffers '
fact proc/sys/net/core/rmem_max 212992
fact proc/sys/net/core/wmem_max 8388608
expect '^warn +QUIC buffers +a socket may keep 208 KiB of what comes, 8 MiB of what leaves'
expect 'fix \(as root\): sysctl -w net.core.rmem_max=8388608 net.core.wmem_max=8388608$'
expect 'over a reboot: printf .* > /etc/sysctl.d/90-weft-quic.conf$'
fact proc/sys/net/core/rmem_max 8388608
expect '^ok +QUIC buffers '
expect '^ok +QUIC packets '
fact proc/sys/kernel/osrelease 4.19.0-8-amd64
expect '^warn +QUIC packets +kernel 4.19.0-8-amd64 takes each packet for itself'
