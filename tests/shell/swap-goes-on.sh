# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1500
# processors: 2
# A job goes on while what is below its swap space breaks, the space being nearly full and in use:
# the donor is killed and started again; the bridge is killed, and another takes over; the donor
# once more, and over nbd also after it stood still for longer than the driver waits.  No process is
# lost, no page is wrong, no request fails.  Over ublk with RDMA, nbd with TCP, and the kernel's own
# socket, there with the donor's kill alone.  WEFT_KINDS: which of these.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap wipefs

in_testbed --timeout 1450 -- "${WEFT_KINDS:-ublk nbd kernel-socket}" <<'END'
. tests/swap.sh
make_group
sysctl -q vm.min_free_kbytes=16384
port=$(free_port)
# What outlives a step must not hold the load's standard input, descriptor 7, which ends it.
donor() {
	start_donor --listen "0.0.0.0:$port" --allow-insecure --memory r=32M --lease 120 \
		--keep 600 7>&-
}
busy() { goes_on 200 300; } # pages that are touched, and checked
donor_dies() {
	kill -KILL "$DONOR_PID"
	wait "$DONOR_PID" || :
	donor
	step "the donor was killed and started again"
	busy
}
bridge_dies() {
	local device pid
	device=$(bridge .device) pid=$(bridge .pid)
	kill -KILL "$pid"
	wait_for gone "$pid"
	weft attach "weft://$RDMA_IP:$port/r" --name r --swap --lanes 1 --device "$device" \
		--transport "$transport" --dead-timeout 200 >"$TMP/attach" 2>&1 7>&- ||
		fail "no take-over: $(cat "$TMP/attach")"
	grep -q 'taken over' "$TMP/attach" || fail "$(cat "$TMP/attach")"
	step "the bridge was killed, and another took over"
	busy
}
# What the driver gave up meanwhile it asks for again.
timeouts() { dmesg | grep -c 'Connection timed out'; }
donor_stands_still() {
	local before
	before=$(timeouts) || :
	kill -STOP "$DONOR_PID"
	gave_up() { (($(timeouts) > before)); }
	wait_for -t 60 gave_up
	donor_dies
}
donor
for kind in $1; do
	step "$kind"
	transport=tcp
	[[ $kind != ublk ]] || transport=auto
	options=(--device-kind "$kind" --transport $transport)
	[[ $kind != kernel-socket ]] || options=(--kernel-socket)
	weft swap on "weft://$RDMA_IP:$port/r" --force --lanes 1 --dead-timeout 200 \
		"${options[@]}" --cgroup /job --memory-high 10M >"$TMP/on" 2>&1 ||
		fail "on: $(cat "$TMP/on")"
	[[ $kind != ublk ]] || wait_for -t 120 over rdma
	start_busy 36 4
	wait_for -t 120 is_full
	busy
	donor_dies
	[[ $kind = kernel-socket ]] || bridge_dies
	donor_dies
	[[ $kind != nbd ]] || donor_stands_still
	is_full || fail "it is not full"
	weft swap status
	[[ $kind = kernel-socket ]] || no_trouble
	end_load
	step "$kind: all pages right"
	weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
	[[ ! $(swaps) && $(weft status --json | jq '.attachments | length') = 0 ]] ||
		fail "$(swaps; weft status)"
done
! dmesg | grep -E 'I/O error|Read-error on swap|oom' || fail "the kernel saw errors"
stop_donor || fail "the donor's exit status: $?"
END
grep -E '^== .*: all pages right' "$TMP/output"
