# SPDX-License-Identifier: MIT
# presets: dev asan
# Memory that a killed donor left is for a donor on the same address; another one of the same region
# name says so and is new.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

port=$(free_port)
epoch() {
	sed -n 's/^region .*epoch \([0-9a-f]*\) .*/\1/p' "$DONOR_LOG"
}

# other LISTEN: it takes nothing over, also not when it ends.
other() {
	start_donor --memory m=8M --listen "$1"
	! grep -q '^recovered' "$DONOR_LOG" ||
		fail "took over what is another's: $(cat "$DONOR_LOG")"
	grep -q "a donor on 127.0.0.1:$port left another one of this name (8 MiB), which is kept for the next donor there, for [0-9]* s more" \
		"$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
	stop_donor || fail "exit status $?"
}

start_donor --memory m=8M --listen "127.0.0.1:$port"
before=$(epoch)
stop_donor KILL || :
other "unix:$TMP/sock"
other 127.0.0.1:0
start_donor --memory m=8M --listen "unix:$TMP/sock" --listen "127.0.0.1:$port"
[[ $(epoch) = "$before" ]] || fail "the donor on the same port has not its own: $(cat "$DONOR_LOG")"
