# Any NBD server can be attached; once a connection was lost its writes fail, unless it is called stable.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdkit nbdcopy qemu-io jq

serve() {
	nbdkit -U "$TMP/nbdkit" -P "$TMP/pid" --exit-with-parent -f file "$TMP/disk" &
	wait_for test -S "$TMP/nbdkit" -a -s "$TMP/pid"
}
stop() {
	kill -KILL "$(cat "$TMP/pid")"
	wait_for gone "$(cat "$TMP/pid")"
	rm -f "$TMP/pid" "$TMP/nbdkit"
}
lost() {
	[[ $(weft status f --json | jq -r '.attachments[0].state') != ready ]]
}
random_file "$TMP/disk" 4M
cp "$TMP/disk" "$TMP/copy"
serve
uri="nbd+unix:///?socket=$TMP/nbdkit" nbd="nbd+unix:///?socket=$TMP/s"
weft attach "$uri" --name f --socket "$TMP/s" >"$TMP/out"
grep -q -e --assume-stable "$TMP/out" || fail "$(cat "$TMP/out")"
nbdcopy "$nbd" "$TMP/back"
cmp "$TMP/back" "$TMP/copy"
qemu-io -f raw "$nbd" -c 'write -P 3 0 64k' >/dev/null
stop
wait_for lost
serve
qemu-io -f raw "$nbd" -c 'read -P 3 0 64k' >"$TMP/read" || fail "$(cat "$TMP/read")"
! qemu-io -f raw "$nbd" -c 'write -P 4 0 64k' >/dev/null 2>&1 || fail "a write after the loss went through"
weft detach f --force 2>/dev/null || :
weft attach "$uri" --name f --socket "$TMP/s" --assume-stable >/dev/null
qemu-io -f raw "$nbd" -c 'write -P 5 0 64k' >/dev/null
stop
wait_for lost
serve
qemu-io -f raw "$nbd" -c 'read -P 5 0 64k' -c 'write -P 6 0 64k' -c 'read -P 6 0 64k' >"$TMP/io" || fail "$(cat "$TMP/io")"
weft detach f
