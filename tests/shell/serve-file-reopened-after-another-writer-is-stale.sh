# SPDX-License-Identifier: MIT
# A bridge is suspended with bytes not written back, its lease runs out, another writes, flushes and
# leaves; then the region's file is closed and opened again: by a clean restart of the donor, or
# because a directory has too many files.  The bridge that wakes up is stale, and writes nothing
# over what the other flushed.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

port=$(free_port)
mkdir "$TMP/d"
(cd "$TMP/d" && for ((i = 0; i < 4100; i++)); do echo >"f$i"; done)
truncate -s 8M "$TMP/d/r"
donor() {
	case $1 in
	file) start_donor --file "r=$TMP/d/r" --lease 1 --listen "127.0.0.1:$port" ;;
	directory) start_donor --directory "$TMP/d" --lease 1 --listen "127.0.0.1:$port" ;;
	esac
}
uri=weft://127.0.0.1:$port/r
socket="nbd+unix:///?socket=$TMP/s"
# Asks what each of them is.
look_at_all() { (($(weft list "weft://127.0.0.1:$port" | wc -l) > 4100)) || fail "weft list"; }
for how in "file restart" "directory restart" "directory list"; do
	donor "${how% *}"
	weft attach "$uri" --socket "$TMP/s" --cache 16M --push-interval 60 \
		--dead-timeout 120 >/dev/null || fail "$how: attach"
	writes 0x41 0 4096 "$socket" || fail "$how: $(cat "$TMP/io")"
	io "$socket" -c 'write -P 0x42 0 4096' || fail "$how: $(cat "$TMP/io")"
	suspend_bridge
	wait_for nobody_has_it
	other weft attach "$uri" --socket "$TMP/s2" >/dev/null ||
		fail "$how: the region is not free"
	writes 0x43 0 8192 "nbd+unix:///?socket=$TMP/s2" || fail "$how: $(cat "$TMP/io")"
	other weft detach r || fail "$how: detach"
	case ${how#* } in
	list) look_at_all ;;
	restart)
		stop_donor || fail "$how: the donor's exit status: $?"
		donor "${how% *}"
		;;
	esac
	wake_bridge
	! io "$socket" -r -c 'read 0 4096' || fail "$how: it shows what it remembers"
	! io "$socket" -c 'write -P 0x44 4096 4096' -c flush || fail "$how: it takes a write"
	is_stale || fail "$how: it is not stale: $(weft status r)"
	reads 0x43 0 8192 "nbd://127.0.0.1:$port/r" || fail "$how: written over: $(cat "$TMP/io")"
	# It did not lose its place for good.
	weft reset --discard r >"$TMP/out" 2>&1 || fail "$how: reset: $(cat "$TMP/out")"
	reads 0x43 0 8192 "$socket" || fail "$how: after the reset: $(cat "$TMP/io")"
	detach
	stop_donor || fail "$how: the donor's exit status: $?"
done
