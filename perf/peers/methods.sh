#!/bin/bash
# SPDX-License-Identifier: MIT
# The guest's side of perf/record-methods NAME --testbed: sets up the kernel's devices, each over a
# RAM disk of its own kind, and measures methods at the RDMA device's address, the devices beside.
# The reports are left in $OUT.
set -euo pipefail

usage="usage: methods.sh BYTES [OPTION…]"
# shellcheck source=../perf/peers/contestants.sh
. "${BASH_SOURCE[0]%/*}/contestants.sh"
(($#)) || die "$usage"
# shellcheck disable=SC2034 # contestants.sh uses them
BYTES=$1 LISTEN=$RDMA_IP DONOR=$RDMA_IP
shift

devices=()
for contestant in nbdkit nvme-tcp nvme-rdma srp; do
	begin_contestant "$contestant" || die "$contestant cannot be set up"
	devices+=(--device "${contestant/nbdkit/nbd-client}=$device")
done
weft bench --methods --at "$RDMA_IP" "${devices[@]}" --out "$OUT" "$@" >/dev/null
