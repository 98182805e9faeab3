# SPDX-License-Identifier: MIT
# What tests of who may go on with a region's contents share.  Source it after lib.sh.
# shellcheck shell=bash
need_tool jq qemu-io

# lend: a donor of r, 8 MiB, whose leases are a second long.  $donor: as a stock client reaches it;
# $socket: as one reaches an attachment at $TMP/s.
lend() {
	start_donor --memory r=8M --lease 1
	# shellcheck disable=SC2034 # for tests
	donor=nbd://127.0.0.1:$PORT/r socket="nbd+unix:///?socket=$TMP/s"
}

# other COMMAND…: as a second borrower, with a run directory of its own.
other() {
	[[ -d $TMP/other ]] || {
		mkdir -m 700 "$TMP/other"
		# shellcheck disable=SC2016 # expanded when it is run
		cleanup_add 'for file in "$TMP"/other/*.json; do
			file=${file##*/attach-}
			other weft detach --force "${file%.json}"
		done 2>/dev/null'
	}
	WEFT_RUN_DIR=$TMP/other "$@"
}

# io URL COMMAND…: qemu-io, which fails when a command does, or other bytes are read than it says.
io() {
	timeout 60 qemu-io -f raw "${@:2}" "$1" >"$TMP/io" 2>&1 &&
		! grep -qiE 'failed|error' "$TMP/io"
}
# each takes: PATTERN OFFSET LENGTH URL
writes() { io "$4" -c "write -P $1 $2 $3" -c flush; }
reads() { io "$4" -r -c "read -P $1 $2 $3"; }

# The attachment is 'r' in all of them.
attachment() { weft status r --json | jq -r ".attachments[0].$1"; }
is_stale() { [[ $(attachment state) = stale ]]; }
# A client that has ended is a user until the bridge has seen it go.
unused() { [[ $(weft status r) = *", 0 clients"* ]]; }
detach() {
	wait_for unused
	weft detach r >/dev/null || fail "detach"
}

# At the donor nobody holds a region: leases are over.
nobody_has_it() { weft status --json | jq -e '.donors[0].attachments | length == 0' >/dev/null; }

# What the donor has, once nobody holds the region: who has lost it may hold it for a lease.
donor_has() { wait_for reads "$@"; }

kill_bridge() {
	local pid
	pid=$(attachment pid)
	kill -KILL "$pid"
	wait_for gone "$pid"
}
# Nothing is heard of it until it is woken up.
suspend_bridge() {
	SUSPENDED=$(attachment pid)
	kill -STOP "$SUSPENDED"
	cleanup_add "kill -CONT $SUSPENDED 2>/dev/null"
}
wake_bridge() { kill -CONT "$SUSPENDED"; }

# attach_stale ARGUMENT…: of an attachment that is taken over, and has to be told that it is stale.
# The command says so and fails; there is a live bridge nevertheless.
attach_stale() {
	! weft attach "$@" >"$TMP/out" 2>&1 || fail "attach says nothing: $(cat "$TMP/out")"
	grep -q stale "$TMP/out" || fail "attach does not say that it is stale: $(cat "$TMP/out")"
	is_stale || fail "there is no bridge for what is stale: $(cat "$TMP/out")"
}

# tenure REGION [DONOR]
tenure() {
	weft list "${2:-weft://127.0.0.1:$PORT}" --json |
		jq -r --arg name "$1" '.[] | select(.name == $name) | .tenure'
}

# A stock client that reconnects by itself and does what it is told: client OPTIONS, those of qemu's
# driver; sets CLIENT. Once it is refused, its first request fails after the delay, in which it
# tries three times.
client() {
	[[ -p $TMP/commands ]] || mkfifo "$TMP/commands"
	exec 8<>"$TMP/commands"
	: >"$TMP/client" # not what the last one said
	qemu-io --image-opts "driver=nbd,reconnect-delay=5,$1" <"$TMP/commands" >"$TMP/client" \
		2>&1 8<&- &
	CLIENT=$!
	client_said=0
}
client_answers() { grep -cE 'bytes at offset|failed|error' "$TMP/client" || :; }
client_answered() { (($(client_answers) > client_said)); }
told() { # COMMAND: whether the client could do it
	echo "$1" >&8
	wait_for -t 40 client_answered
	client_said=$(client_answers)
	grep -E 'bytes at offset|failed|error' "$TMP/client" | tail -n 1 | grep -q 'bytes at offset'
}
client_ends() {
	echo quit >&8
	wait_for -t 40 gone "$CLIENT"
	wait "$CLIENT" || :
	exec 8>&-
}

# The network between a client, at port $way, and a donor at $port: up, or cut with all its
# connections.
# shellcheck disable=SC2154 # whoever uses it has set them
network_up() {
	socat "TCP-LISTEN:$way,reuseaddr,fork,bind=127.0.0.1" "TCP:127.0.0.1:$port" &
	NETWORK=$!
	wait_for network_is_up
}
network_is_up() { (exec 3<>"/dev/tcp/127.0.0.1/$way") 2>/dev/null; }
network_cut() {
	local pids
	kill -STOP "$NETWORK"
	mapfile -t pids < <(pgrep -P "$NETWORK")
	kill -KILL "$NETWORK" "${pids[@]}" 2>/dev/null || :
	wait "$NETWORK" 2>/dev/null || :
}
