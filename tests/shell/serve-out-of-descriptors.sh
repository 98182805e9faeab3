# SPDX-License-Identifier: MIT
# Out of descriptors: neither a donor nor a bridge spins, `weft status` still gets its answer, who
# has something attached comes back, and all goes on once there are descriptors again.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool socat prlimit jq

look_s=3
no_more() { # PID: not one descriptor beside those that it has, of which the spare is one
	local first=0
	while [[ -e /proc/$1/fd/$first ]]; do
		((++first))
	done
	prlimit --pid "$1" --nofile="$first:"
}
ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$1/stat"; }
idle() { # PID: it takes less than a fifth of a processor
	local before
	before=$(ticks "$1")
	sleep $look_s
	(($(ticks "$1") - before < look_s * $(getconf CLK_TCK) / 5)) ||
		fail "$(($(ticks "$1") - before)) ticks in $look_s s"
}

start_donor --memory r=1M --memory other=1M
weft attach "$URI" --socket "$TMP/s" --foreground &
wait_for test -S "$TMP/s"
bridge=$(jq .pid "$WEFT_RUN_DIR/attach-r.json")

echo "== a donor"
limit=$(prlimit --pid "$DONOR_PID" --nofile --output SOFT --noheadings)
no_more "$DONOR_PID"
for ((i = 0; i < 20; i++)); do
	socat -u "TCP:127.0.0.1:$PORT" "CREATE:$TMP/silent.$i" &
done
idle "$DONOR_PID"
weft status --json >"$TMP/status"
jq -e '.donors[0].kind == "donor"' "$TMP/status" >/dev/null ||
	fail "no status: $(cat "$TMP/status")"
grep -q "connections have to wait: Too many open files" "$DONOR_LOG" ||
	[[ $(weft status --json | jq .donors[0].strangers.tcp.made_room) -gt 0 ]] ||
	fail "$(cat "$DONOR_LOG")"
prlimit --pid "$DONOR_PID" --nofile="${limit// /}:"
weft attach "weft://127.0.0.1:$PORT/other" --socket "$TMP/o" || fail "it does not go on"
weft detach other

echo "== a bridge"
limit=$(prlimit --pid "$bridge" --nofile --output SOFT --noheadings)
no_more "$bridge"
for ((i = 0; i < 5; i++)); do
	socat -u "UNIX-CONNECT:$TMP/s" "CREATE:$TMP/client.$i" &
	socat "UNIX-CONNECT:$WEFT_RUN_DIR/attach-r.sock" PIPE &
done
idle "$bridge"
prlimit --pid "$bridge" --nofile="${limit// /}:"
answers() { [[ $(weft status r --json | jq -r '.attachments[0].state') = ready ]]; }
wait_for answers
weft detach --force r
