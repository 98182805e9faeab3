# SPDX-License-Identifier: MIT
# A bridge is killed, its lease runs out, another writes: whoever is attached again under the name
# is stale, shows nothing that was there before, and writes nothing over what the other flushed.  A
# reset goes on with what is there now.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"

lend
put() { dd of="$TMP/file" bs=4096 seek="$2" count=1 conv=notrunc,fsync status=none < <(head -c 4096 /dev/zero | tr '\0' "$1"); }
attach=(weft attach "$URI" --mount "$TMP/file" --socket "$TMP/s" --dead-timeout 120)

head -c 12288 /dev/zero | tr '\0' C >"$TMP/unsaved"
disconnected() \
	{ ! stat "$TMP/file" >/dev/null && [[ $(stat "$TMP/file" 2>&1) = *"not connected"* ]]; }
# try WHAT OPTION…
try() {
	local what=$1
	shift
	"${attach[@]}" "$@" >/dev/null || fail "$what: attach"
	put A 0
	put A 1
	cmp -n 4096 "$TMP/file" <(head -c 4096 /dev/zero | tr '\0' A) ||
		fail "$what: it reads something else"
	# Without the FLUSH that qemu-io ends with.
	[[ $what != dirty* ]] || nbdcopy "$TMP/unsaved" "$socket" || fail "$what: nbdcopy"
	kill_bridge
	wait_for disconnected
	wait_for nobody_has_it
	writes 0x42 0 12288 "$donor" || fail "$what: $(cat "$TMP/io")"
	attach_stale "${attach[@]:2}" "$@"
	! timeout 20 dd if="$TMP/file" bs=4096 count=1 of=/dev/null status=none 2>"$TMP/err" ||
		fail "$what: it shows something"
	! put A 1 2>"$TMP/err" || fail "$what: it takes a write"
	donor_has 0x42 0 12288 "$donor" || fail "$what: written over: $(cat "$TMP/io")"
	# That it is stale outlives its process.
	kill_bridge
	wait_for disconnected
	wait_for disconnected
	attach_stale "${attach[@]:2}" "$@"
	! timeout 20 dd if="$TMP/file" bs=4096 count=1 of=/dev/null status=none 2>"$TMP/err" ||
		fail "$what: it shows something, taken over"
	if [[ $what = dirty* ]]; then
		# What was not at the donor can be saved, and is given up by name alone.
		! weft reset r 2>"$TMP/err" || fail "$what: given up by a reset"
		grep -q "cache2 holds 12 KiB that were not at the donor.*weft rescue $TMP/cache2 FILE" "$TMP/err" || fail "$what: $(cat "$TMP/err")"
		weft rescue "$TMP/cache2" "$TMP/saved" >/dev/null || fail "$what: rescue"
		cmp -n 12288 "$TMP/saved" "$TMP/unsaved" || fail "$what: saved something else"
	fi
	weft reset --discard r >"$TMP/out" 2>&1 || fail "$what: reset: $(cat "$TMP/out")"
	reads 0x42 0 12288 "$socket" || fail "$what: not what is there now: $(cat "$TMP/io")"
	cmp -n 12288 "$TMP/file" <(head -c 12288 /dev/zero | tr '\0' B) ||
		fail "$what: the file has something else"
	detach
}

try "no cache"
try "clean cache file" --cache 16M --cache-file "$TMP/cache" --write-through
try "dirty cache file" --cache 16M --cache-file "$TMP/cache2" --push-interval 60
