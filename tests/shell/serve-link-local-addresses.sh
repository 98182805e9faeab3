# SPDX-License-Identifier: MIT
# A donor at an IPv6 link-local address: the attach line that it prints works, and both ways to
# write the zone do.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool ip qemu-io jq

# In a network of its own, whose loopback device has such an address.
if [[ ${1:-} != inside ]]; then
	unshare --net true 2>/dev/null || skip "no network namespaces here"
	exec unshare --net bash "${BASH_SOURCE[0]}" inside
fi
ip link set lo up
ip -6 addr add fe80::1/64 dev lo nodad 2>/dev/null || skip "no IPv6 here"

for zone in '%lo' '%25lo'; do
	start_donor --memory r=1M --listen "[fe80::1$zone]:10992" --allow-insecure
	line=$(sed -n 's/.*map it with:  //p' "$DONOR_LOG")
	[[ $line = "weft attach 'weft://[fe80::1%25lo]:10992/r' --"* ]] || fail "$line"
	[[ $(grep '^listening' "$DONOR_LOG") = 'listening on [fe80::1%lo]:10992' ]] ||
		fail "$(cat "$DONOR_LOG")"
	for uri in 'weft://[fe80::1%25lo]:10992' 'weft://[fe80::1%lo]:10992' 'nbd://[fe80::1%25lo]:10992'; do
		weft list "$uri" | grep >/dev/null '^r ' ||
			fail "list $uri: $(weft list "$uri" 2>&1)"
		weft attach "$uri/r" --socket "$TMP/s" --name z >"$TMP/said" 2>&1 ||
			fail "attach $uri: $(cat "$TMP/said")"
		qemu-io -f raw "nbd+unix:///?socket=$TMP/s" -c 'write -P 7 0 4096' >/dev/null ||
			fail "no write"
		weft status z --json |
			jq -e --arg uri "${uri/\%lo/%25lo}/r" '.attachments[0].uri == $uri' \
				>/dev/null ||
			fail "$(weft status z --json | jq .attachments[0].uri)"
		weft detach z >/dev/null
	done
	stop_donor
done
