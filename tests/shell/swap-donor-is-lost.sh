# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# The donor of a swap space is lost for good while a job swaps, over the kernel's own socket (over
# ublk: device-swap; WEFT_KINDS="ublk nbd").  Soon after the dead timeout the kernel has ended the
# job, which the log says; the machine lives; weft swap status says what is lost; off ends the rest.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap wipefs

in_testbed --timeout 850 -- "${WEFT_KINDS:-kernel-socket}" <<'END'
. tests/swap.sh
make_group
sysctl -q vm.min_free_kbytes=16384
lives() { # it makes processes, memory and files
	head -c 32M /dev/zero | tail -n 1 | tr -d '\0'
	head -c 1M /dev/urandom >"$TMP/file"
	[[ $(wc -c <"$TMP/file") = 1048576 ]] || fail "the machine does not write files"
}
log_says() { grep -qE "$1" "$WEFT_RUN_DIR/attach-r.log"; }
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
	since=$SECONDS
	job_ended() { ! kill -0 "$LOAD"; }
	lives
	wait_for -t 100 job_ended
	status=0
	wait "$LOAD" || status=$?
	exec 7>&-
	step "$kind: the job has ended after $((SECONDS - since)) s, status $status"
	[[ $status = 135 ]] || fail "not by SIGBUS: $status $(cat "$TMP/load")"
	wait_for -t 30 log_says "every page that is swapped to it is out of reach"
	log_says 'pid [0-9]+ \(swap-load\) has .* of swapped pages' || log_says 'no process has' ||
		fail "it does not say whose: $(cat "$WEFT_RUN_DIR/attach-r.log")"
	lives
	weft swap status
	space '.state == "dead" or .state == "stale"' >/dev/null || fail "it says nothing"
	weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
	step "$kind: off"
	[[ ! $(swaps) && $(cat "$group/memory.high") = max ]] || fail "$(swaps)"
	[[ $(weft status --json | jq '.attachments | length') = 0 ]] || fail "$(weft status)"
	lives
done
END
