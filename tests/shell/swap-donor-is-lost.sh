# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1200
# processors: 2
# The donor of a swap space is lost for good while a job swaps, over the kernel's own socket (over
# ublk: device-swap; WEFT_KINDS="ublk nbd").  Soon after the dead timeout the kernel has ended the
# job, which the log says; the machine lives; weft swap status says what is lost; off ends the rest.
# Where two donors have copies, one after the other is lost with its memory, and the job goes on.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap wipefs

in_testbed --timeout 1150 -- "${WEFT_KINDS:-kernel-socket}" <<'END'
. tests/copies.sh
. tests/swap.sh
make_group
sysctl -q vm.min_free_kbytes=16384
lives() { # it makes processes, memory and files
	head -c 32M /dev/zero | tail -n 1 | tr -d '\0'
	head -c 1M /dev/urandom >"$TMP/file"
	[[ $(wc -c <"$TMP/file") = 1048576 ]] || fail "the machine does not write files"
}
log_says() { grep -qE "$1" "$WEFT_RUN_DIR/attach-r.log"; }
with_copies() {
	local donor since had
	export COPY_BYTES=36M COPY_LEASE=5
	lend a
	lend b
	weft swap on "${COPY[a]}" "${COPY[b]}" --mirror 2 --name r --force --lanes 1 \
		--dead-timeout 60 --transport tcp --cgroup /job --memory-high 8M \
		>"$TMP/on" 2>&1 || fail "on: $(cat "$TMP/on")"
	start_busy 32 4
	for donor in a b; do
		goes_on 100 200
		forget $donor
		wait_for -t 60 space '.copies.state == "degraded"' >/dev/null
		step "copies: $donor is lost"
		goes_on 100 200
		weft swap status
		space '.donors | map(.lost_bytes > 0) | any and (all | not)' ||
			fail "$(weft swap status)"
		lend $donor 7>&-
		since=$SECONDS had=$(touched)
		wait_for -t 240 space '.copies.state == "whole"' >/dev/null
		space '.donors | map(.lost_bytes == 0) | all' || fail "$(weft swap status)"
		step "copies: both have all again: $COPY_BYTES in $((SECONDS - since)) s," \
			"$(($(touched) - had)) pages touched meanwhile"
	done
	goes_on 100 200
	no_trouble
	end_load
	step "copies: all pages right"
	weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
	end_all_donors
}
with_copies
for kind in $1; do
	step "$kind"
	options=(--device-kind "$kind" --transport tcp)
	[[ $kind != kernel-socket ]] || options=(--kernel-socket)
	start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=64M --lease 5
	weft swap on "weft://$RDMA_IP:$PORT/r" --force --lanes 1 --dead-timeout 8 "${options[@]}" \
		--cgroup /job --memory-high 8M >"$TMP/on" 2>&1 || fail "on: $(cat "$TMP/on")"
	start_busy 32 4
	goes_on 60 200
	mapfile -t donors < <(pgrep -x 'weft-serve|weftholder')
	kill -KILL "${donors[@]}"
	wait "$DONOR_PID" || :
	lives
	job_dies 100
	wait_for -t 30 log_says "every page that is swapped to it is out of reach"
	wait_for -t 30 log_says 'pid [0-9]+ \(swap-load\) has .* of swapped pages'
	lives
	weft swap status | tee "$TMP/status"
	grep -q 'outlive the loss of one (weft swap on --mirror)' "$TMP/status" ||
		fail "it does not say how to lose nothing"
	space '.state == "dead" or .state == "stale"' >/dev/null || fail "it says nothing"
	weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
	step "$kind: off"
	[[ ! $(swaps) && $(cat "$group/memory.high") = max ]] || fail "$(swaps)"
	[[ $(weft status --json | jq '.attachments | length') = 0 ]] || fail "$(weft status)"
	lives
done
END
