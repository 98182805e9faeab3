# SPDX-License-Identifier: MIT
# What tests of copies share: donors a, b and c, one region each, which are killed and come back,
# with their memory or without.  Source after lib.sh.
# shellcheck shell=bash
need_tool jq qemu-io

declare -A COPY_PORT COPY_PID COPY
# lend DONOR [OPTION…]: starts it, on the port that it had before.
lend() {
	local donor=$1
	shift
	: "${COPY_PORT[$donor]:=$(free_port)}"
	[[ -d $TMP/$donor ]] || mkdir -m 700 "$TMP/$donor"
	# A run directory of its own, so that a holder's memory is its donor's.
	WEFT_RUN_DIR=$TMP/$donor start_donor --memory "r=${COPY_BYTES:-8M}" \
		--lease "${COPY_LEASE:-20}" --listen "127.0.0.1:${COPY_PORT[$donor]}" "$@"
	COPY_PID[$donor]=$DONOR_PID
	COPY[$donor]=weft://127.0.0.1:${COPY_PORT[$donor]}/r
}
# lose DONOR…: each is killed; its memory is kept.
lose() {
	local donor
	for donor; do
		kill -KILL "${COPY_PID[$donor]}"
		wait "${COPY_PID[$donor]}" || :
	done
}
# forget DONOR…: each is killed, and its memory is gone.
forget() {
	local donor
	lose "$@"
	for donor; do end_donors_in "$TMP/$donor"; done
}
# Donors and holders in a run directory of their own are ours to end.
end_donors_in() {
	local pid
	for pid in $(env -u WEFT_RUN_DIR grep -lzxF "WEFT_RUN_DIR=$1" /proc/[0-9]*/environ \
		2>/dev/null); do
		pid=${pid#/proc/}
		kill -KILL "${pid%/environ}" 2>/dev/null || :
		wait_for gone "${pid%/environ}"
	done
}
end_all_donors() {
	local donor
	for donor in "${!COPY_PORT[@]}"; do end_donors_in "$TMP/$donor"; done
}
cleanup_add end_all_donors

io() { qemu-io -f raw -t none "nbd+unix:///?socket=$TMP/s" "$@"; }
writes() { io -c "write -P $1 ${2:-0 8M}" -c flush >"$TMP/io" 2>&1; }
reads() { io -c "read -P $1 ${2:-0 8M}" >"$TMP/io" 2>&1 && ! grep -qi "failed\|error" "$TMP/io"; }
# mirror DONOR… [-- OPTION…]: attaches 'm'.
mirror() {
	local uris=()
	while (($#)) && [[ $1 != -- ]]; do
		uris+=("${COPY[$1]}")
		shift
	done
	local nr=${#uris[@]}
	shift || :
	weft attach "${uris[@]}" --mirror "$nr" --name m --socket "$TMP/s" --lanes 2 "$@" \
		>"$TMP/out" 2>"$TMP/err"
}
refused() { # TEXT: what mirror or another said last
	grep -qF -- "$1" "$TMP/err" || fail "it does not say '$1': $(cat "$TMP/err")"
}
# The exit status says whether the copies are current.
status_of() { { weft status m --json || :; } | jq -r ".attachments[0]$1"; }
copies() { status_of ".copies$1"; }
is_whole() { [[ $(copies .state) = whole ]]; }
is_degraded() { [[ $(copies .state) = degraded ]]; }
is_copies() { [[ $(copies .state) = "$1" ]]; }
# Clients of the socket that have ended are users until the bridge has seen them go.
no_clients() { [[ $(weft status m || :) = *", 0 clients"* ]]; }
detach() {
	wait_for no_clients
	weft detach m >"$TMP/out" 2>&1 || fail "detach: $(cat "$TMP/out")"
}
fits() { # SCHEMA FILE: of tests/support/status-schema.jq
	local wrong
	local schema=$WEFT_SRC/tests/support/status-schema.jq
	wrong=$(jq -r --arg keys no --arg of "$1" -f "$schema" "$2") || fail "jq: $2"
	[[ ! $wrong ]] || fail "$wrong"
}
kill_bridge() {
	local pid
	pid=$(status_of .pid)
	kill -KILL "$pid"
	wait_for gone "$pid"
}
