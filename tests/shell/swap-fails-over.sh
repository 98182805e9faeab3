# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# A job that swaps to another machine goes on, the space being nearly full and in use, when RDMA
# fails and TCP takes its place, and when RDMA comes back: no page is wrong, no request fails.  When
# the donor's machine dies, the job ends soon after the dead timeout; the borrower lives, and says
# whose pages are lost.  WEFT_KINDS: over which drivers.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap wipefs

in_testbed --nodes 2 --timeout 850 -- "${WEFT_KINDS:-nbd ublk}" <<'END'
. tests/swap.sh
make_group
sysctl -q vm.min_free_kbytes=16384
start_far_donor 32M
listed() { timeout 5 weft list "weft://$PEER_TCP_IP" | grep -q "rdma:10809:$PEER_RDMA_IP"; }
wait_for -t 60 listed
link() { # on|off TRANSPORT
	local since=$SECONDS
	monitor2 set_link rdma "$1" >/dev/null
	wait_for -t 120 over "$2"
	step "$kind: over $2 after $((SECONDS - since)) s"
	goes_on 200 300
}
for kind in $1; do
	step "$kind"
	weft swap on "weft://$PEER_TCP_IP/r" --lanes 1 --device-kind "$kind" --dead-timeout 30 \
		--cgroup /job --memory-high 10M >"$TMP/on" 2>&1 || fail "on: $(cat "$TMP/on")"
	wait_for -t 120 over rdma
	start_busy 36 4
	wait_for -t 120 is_full
	goes_on 200 300
	for _ in 1 2; do
		link off tcp
		link on rdma
	done
	is_full || fail "it is not full"
	no_trouble
	[[ $(bridge '.transport_changes >= 4') = true ]] || fail "$(weft status r)"
	[[ $kind != "${1##* }" ]] || break
	end_load
	step "$kind: all pages right"
	weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
done
! dmesg | grep -E 'I/O error|Read-error on swap|oom' || fail "the kernel saw errors"

step "the donor's machine dies"
monitor2 quit >/dev/null || :
job_dies 200
grep -E "every page that is swapped to it is out of reach|has .* of swapped pages" \
	"$WEFT_RUN_DIR/attach-r.log" || fail "$(cat "$WEFT_RUN_DIR/attach-r.log")"
head -c 32M /dev/zero | tail -n 1 | tr -d '\0' # it makes processes, and has memory
weft swap status
space '.state == "dead"' >/dev/null || fail "it says nothing"
timeout 200 weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
step "off"
[[ ! $(swaps) && $(cat "$group/memory.high") = max ]] || fail "$(swaps)"
END
grep '^== ' "$TMP/output"
