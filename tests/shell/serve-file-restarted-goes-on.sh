# SPDX-License-Identifier: MIT
# A donor of a file that stops cleanly and starts under a waiting borrower: it goes on, whether it
# wrote in this life of the donor, only read, or did neither; once, and again; also when its lease
# ran out meanwhile, as long as nobody else wrote; and a reader with --shared.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

port=$(free_port)
truncate -s 8M "$TMP/region"
donor() { start_donor --file "r=$TMP/region" --listen "127.0.0.1:$port" "${lease[@]}"; }
restart() {
	stop_donor || fail "the donor's exit status: $?"
	donor
}
lease=(--lease 5)
donor
socket="nbd+unix:///?socket=$TMP/s"
attach=(weft attach "weft://127.0.0.1:$port/r" --socket "$TMP/s" --dead-timeout 120)
"${attach[@]}" >/dev/null || fail "attach"
other weft attach "weft://127.0.0.1:$port/r" --shared --socket "$TMP/s2" \
	--dead-timeout 120 >/dev/null || fail "attach --shared"
value=0
for what in nothing read write write nothing nothing read write; do
	case $what in
	read) reads "$value" 0 4096 "$socket" || fail "$what: $(cat "$TMP/io")" ;;
	write) writes $((++value)) 0 4096 "$socket" || fail "$what: $(cat "$TMP/io")" ;;
	esac
	restart
	reads "$value" 0 4096 "$socket" ||
		fail "after $what and a restart: $(cat "$TMP/io"; weft status r)"
	reads "$value" 0 4096 "nbd+unix:///?socket=$TMP/s2" ||
		fail "the reader, after $what and a restart: $(cat "$TMP/io")"
done
# Killed before a write of its life: the mark is good as it is.
restart
reads "$value" 0 4096 "$socket" || fail "$(cat "$TMP/io")"
stop_donor KILL || :
donor
reads "$value" 0 4096 "$socket" ||
	fail "the donor was killed before any write: $(cat "$TMP/io"; weft status r)"
writes $((++value)) 0 4096 "$socket" || fail "$(cat "$TMP/io")"
# Taken over while the donor is away.
stop_donor || fail "the donor's exit status: $?"
kill_bridge
donor
"${attach[@]}" >"$TMP/out" || fail "taken over: $(cat "$TMP/out")"
reads "$value" 0 4096 "$socket" || fail "taken over: $(cat "$TMP/io")"
# For longer than a lease, alone.
lease=(--lease 1)
restart
suspend_bridge
is_free() \
	{ weft status --json | jq -e '[.donors[0].attachments[] | select(.mode == "write" or .mode == "writer")] | length == 0' >/dev/null; }
wait_for is_free
restart
wake_bridge
reads "$value" 0 4096 "$socket" || fail "it lapsed alone: $(cat "$TMP/io"; weft status r)"
writes $((++value)) 0 4096 "$socket" || fail "$(cat "$TMP/io")"
wait_for unused
other weft detach r || fail "detach"
weft detach r || fail "detach"
reads "$value" 0 4096 "nbd://127.0.0.1:$port/r" || fail "the donor: $(cat "$TMP/io")"
