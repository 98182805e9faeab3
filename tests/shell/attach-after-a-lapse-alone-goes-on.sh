# SPDX-License-Identifier: MIT
# A bridge is killed, or suspended, and its lease runs out, but nobody else wrote: it goes on, with
# what it had not written back.
# presets: dev asan
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

truncate -s 8M "$TMP/region"
start_donor --memory m=8M --file "f=$TMP/region" --lease 1
socket="nbd+unix:///?socket=$TMP/s"
for region in m f; do
	uri=weft://127.0.0.1:$PORT/$region
	attach=(weft attach "$uri" --name r --socket "$TMP/s" --cache 16M --cache-file "$TMP/cache"
		--push-interval 60 --dead-timeout 120)
	"${attach[@]}" >/dev/null || fail "attach"
	writes 0x41 0 4096 "$socket" || fail "$(cat "$TMP/io")"
	io "$socket" -c 'write -P 0x42 4096 4096' || fail "$(cat "$TMP/io")"
	suspend_bridge
	wait_for nobody_has_it
	wake_bridge
	io "$socket" -r -c 'read -P 0x41 0 4096' -c 'read -P 0x42 4096 4096' ||
		fail "$region: woken up: $(cat "$TMP/io")"
	io "$socket" -c 'write -P 0x43 4096 4096' || fail "$(cat "$TMP/io")"
	kill_bridge
	wait_for nobody_has_it
	"${attach[@]}" >"$TMP/out" || fail "$region: taken over: $(cat "$TMP/out")"
	io "$socket" -r -c 'read -P 0x41 0 4096' -c 'read -P 0x43 4096 4096' ||
		fail "$region: taken over: $(cat "$TMP/io")"
	detach
	reads 0x43 4096 4096 "nbd://127.0.0.1:$PORT/$region" ||
		fail "$region: not written back: $(cat "$TMP/io")"
done
