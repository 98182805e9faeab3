# SPDX-License-Identifier: MIT
# A key that is revoked ends what it let in over QUIC, whose borrower goes on when it has a key
# again; a connection with another key goes on all the time.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_tool jq qemu-io
need_quic

cd "$TMP"
for name in alice bob; do
	weft key new $name --store store --out $name >/dev/null || fail "no key"
done
start_donor --keys store --memory a=8M --memory b=8M --quic 0
quic=$(sed -n 's/^listening on 127.0.0.1:\([0-9]*\) over QUIC$/\1/p' "$DONOR_LOG")
attach() { # NAME REGION
	weft attach "weft://127.0.0.1:$quic/$2?transport=quic" --key "$1" --name "$2" \
		--socket "sock-$2" --dead-timeout 0 >/dev/null || fail "$1 is not let in"
}
is() { [[ $(weft status "$1" --json | jq -r '.attachments[0].state') = "$2" ]]; }
moves() { # REGION
	qemu-io -f raw -c 'write -P 7 0 64k' -c 'read -P 7 0 64k' "nbd+unix:///?socket=sock-$1" \
		>out || fail "$1: $(<out)"
}
attach alice a
attach bob b
moves a
moves b

weft key revoke alice --store store >/dev/null
said() { grep -q "$1" "$DONOR_LOG"; }
wait_for said "ended a session of key 'alice' at .* over quic with region 'a': key 'alice' is not"
wait_for is a reconnecting
tells() { [[ $(weft status a) = *"no longer takes the key alice of "* ]]; }
wait_for tells
moves b
[[ $(grep -c 'ended a session' "$DONOR_LOG") = 2 ]] || fail "$(cat "$DONOR_LOG")"

echo "a key again"
weft key new alice --store store --out new >/dev/null
mv new alice
wait_for -t 20 is a ready
moves a
[[ $(weft status b --json | jq '.attachments[0].reconnects') = 0 ]] || fail "bob was cut off"
weft detach a >/dev/null
weft detach b >/dev/null
stop_donor || fail "exit status $?"
