# SPDX-License-Identifier: MIT
# A copy of a clean stop is put back in place, under a donor that lends the file: a bridge that
# knows newer contents is told, and mixes nothing; over a directory, where the copy is lent then,
# and with --file, where the donor has to be started anew.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

mkdir "$TMP/dir"
socket="nbd+unix:///?socket=$TMP/s"

try() { # DONOR-OPTIONS…
	truncate -s 1M "$TMP/dir/r"
	port=$(free_port)
	start_donor "$@" --lease 1 --listen "127.0.0.1:$port"
	weft attach "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" --cache 8M \
		--write-through >/dev/null || fail "attach"
	writes 0x41 0 8192 "$socket" || fail "$(cat "$TMP/io")"
	stop_donor
	cp -a "$TMP/dir/r" "$TMP/copy"
	start_donor "$@" --lease 1 --listen "127.0.0.1:$port"
	goes_on() { [[ $(attachment state) = ready ]]; }
	wait_for goes_on
	writes 0x42 0 4096 "$socket" || fail "$(cat "$TMP/io")"
	local pid
	pid=$(weft status r --json | jq '.attachments[0].pid')
	kill -STOP "$pid"
	wait_for nobody_has_it
	cp -a "$TMP/copy" "$TMP/dir/r"
	kill -CONT "$pid"
}
not_shown() { # neither what the cache has, nor a mixture
	! timeout 30 qemu-io -r -f raw -c 'read 0 4096' "$socket" >"$TMP/io" 2>&1 ||
		! grep -q 'read 4096/4096' "$TMP/io"
}

try --directory "$TMP/dir"
wait_for is_stale
not_shown || fail "it shows something: $(cat "$TMP/io")"
weft detach --force r >/dev/null 2>&1 || :
wait_for reads 0x41 0 8192 "nbd://127.0.0.1:$PORT/r" # the copy is lent
stop_donor

rm -f "$TMP/dir/r" "$TMP/copy"
try --file "r=$TMP/dir/r"
told() { [[ $(weft status) = *"put back in its file's place"* ]]; }
wait_for told
weft detach --force r >/dev/null 2>&1 || :
! weft attach "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" >"$TMP/out" 2>&1 ||
	fail "it is lent to others"
grep -q "put back in its file's place" "$TMP/out" || fail "$(cat "$TMP/out")"
! stop_donor || fail "the donor ended as if all of it were in the file"
start_donor --file "r=$TMP/dir/r" --lease 1
wait_for reads 0x41 0 8192 "nbd://127.0.0.1:$PORT/r"
