# SPDX-License-Identifier: MIT
# Any NBD server can be attached; once a connection was lost every request fails, unless it is
# called stable.
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
	[[ $(weft status f --json | jq -r '.attachments[0].state') = "$1" ]]
}
random_file "$TMP/disk" 4M
cp "$TMP/disk" "$TMP/copy"
serve
uri="nbd+unix:///?socket=$TMP/nbdkit" nbd="nbd+unix:///?socket=$TMP/s"
mount=()
[[ ! -w /dev/fuse ]] || mount=(--mount "$TMP/f")
weft attach "$uri" --name f --socket "$TMP/s" "${mount[@]}" >"$TMP/out"
grep -q -e --assume-stable "$TMP/out" || fail "$(cat "$TMP/out")"
nbdcopy "$nbd" "$TMP/back"
cmp "$TMP/back" "$TMP/copy"
qemu-io -f raw "$nbd" -c 'write -P 3 0 64k' >/dev/null
if [[ -n ${mount[*]} ]]; then
	exec 9<"$TMP/f"
	cmp -n 4096 "$TMP/f" <(head -c 4096 /dev/zero | tr '\0' '\3') # cached now
fi
stop
wait_for lost stale
# What it has now is something else.
head -c 4M /dev/zero >"$TMP/disk"
serve
[[ $(weft status f) = *"stale: the server cannot say whether its contents are still the same"* ]] ||
	fail "$(weft status f)"
counted() {
	weft status f --json | jq '.attachments[0] | .read_bytes, .latency_s.read.count'
}
before=$(counted)
! qemu-io -f raw "$nbd" -c 'read 0 64k' >"$TMP/read" 2>&1 ||
	fail "a read after the loss went through"
[[ $(counted) = "$before" ]] || fail "a read that failed was counted as bytes read"
! qemu-io -f raw "$nbd" -c 'write -P 4 0 64k' >/dev/null 2>&1 ||
	fail "a write after the loss went through"
if [[ -n ${mount[*]} ]]; then
	unreadable() {
		! head -c 4096 <&9 >/dev/null && ! cat "$TMP/f" >/dev/null
	}
	wait_for unreadable
	exec 9<&-
fi
weft detach f --force 2>/dev/null || :
weft attach "$uri" --name f --socket "$TMP/s" --assume-stable >/dev/null
qemu-io -f raw "$nbd" -c 'write -P 5 0 64k' >/dev/null
stop
wait_for lost reconnecting
serve
qemu-io -f raw "$nbd" -c 'read -P 5 0 64k' -c 'write -P 6 0 64k' -c 'read -P 6 0 64k' >"$TMP/io" ||
	fail "$(cat "$TMP/io")"
weft detach f
