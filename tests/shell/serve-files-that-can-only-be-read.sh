# SPDX-License-Identifier: MIT
# A file that may only be read is lent read-only, whether it was named or is in a directory; who
# wants to write is told what to do about it, and what cannot be read at all is said in plain words.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io jq setpriv

# Root may read and write whatever it likes, unless it gives that up.
bounded=()
[[ $(id -u) != 0 ]] ||
	bounded=(setpriv "--bounding-set=-dac_override,-dac_read_search"
		"--inh-caps=-dac_override,-dac_read_search")
mkdir "$TMP/d"
random_file "$TMP/d/plain" 8192
random_file "$TMP/d/secret" 8192
random_file "$TMP/d/own" 8192
chmod 444 "$TMP/d/plain"
chmod 000 "$TMP/d/secret"

serve() {
	rm -f "$TMP/log"
	"${bounded[@]}" "$(command -v weft-serve)" --listen 127.0.0.1:0 "$@" >"$TMP/log" 2>&1 &
	donor=$!
	wait_for grep -qx ready "$TMP/log"
	port=$(sed -n 's/^listening on 127.0.0.1:\([0-9]*\)$/\1/p' "$TMP/log")
}
check() { # REGION
	local said
	weft list "weft://127.0.0.1:$port" >"$TMP/list"
	grep -q "^$1 .* read-only " "$TMP/list" || fail "$(cat "$TMP/list")"
	said=$(weft attach "weft://127.0.0.1:$port/$1" --socket "$TMP/s" --name a 2>&1) &&
		fail "attached for writing"
	[[ $said = *"region '$1' is read-only; add --read-only"* ]] || fail "$said"
	weft attach "weft://127.0.0.1:$port/$1" --socket "$TMP/s" --name a --read-only >/dev/null ||
		fail "cannot be read"
	qemu-io -r -f raw -c 'read 0 8192' "nbd+unix:///?socket=$TMP/s" >/dev/null ||
		fail "cannot be read"
	weft detach a >/dev/null
}

serve --file "one=$TMP/d/plain"
grep -q "region 'one' is read-only: $TMP/d/plain cannot be written" "$TMP/log" ||
	fail "$(cat "$TMP/log")"
check one
kill "$donor"
wait "$donor" || fail "exit status $?"

serve --directory "$TMP/d"
check plain
qemu-io -f raw -c 'write 0 4096' "nbd://127.0.0.1:$port/own" >/dev/null ||
	fail "a file that can be written cannot"
grep -q "^secret  *cannot be used: .*Permission denied" "$TMP/list" || fail "$(cat "$TMP/list")"
! grep -E 'nbd_|opt_|server replied' "$TMP/list" || fail "a library's text"
weft list "weft://127.0.0.1:$port" --json |
	jq -e '.[] | select(.name == "secret") | .error | test("Permission denied")' >/dev/null ||
	fail "$(weft list "weft://127.0.0.1:$port" --json)"
kill "$donor"
wait "$donor" || fail "exit status $?"
