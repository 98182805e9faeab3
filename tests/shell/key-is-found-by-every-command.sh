# SPDX-License-Identifier: MIT
# A borrower's key: each command finds it by itself or is told where it is; a donor that does not
# prove it, or a key that the donor does not know, is refused, and nothing goes on in plaintext
# unless that was ordered; which key is used is shown and kept, the secret never.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq qemu-io

cd "$TMP"
export HOME=$TMP/home
mkdir -p home/.config/weft
chmod 700 home home/.config home/.config/weft
weft key new node7 --store store --out node7.key >/dev/null
weft key new node8 --store other --out node8.key >/dev/null
start_donor --keys store --memory scratch=8M
keyed=$URI
refused() { # TEXT COMMAND…
	local status=0
	"${@:2}" >out 2>err || status=$?
	[[ $status = 1 && $(<err) = *"$1"* ]] || fail "${*:2}: exit status $status: $(cat out err)"
	! grep -qF "$(cut -d: -f2 node7.key)" out err || fail "a secret is shown"
}
shown() { weft status a --json | jq -r ".attachments[0].donors[0] | $1"; }
attaches() { # ARGUMENT…
	weft attach "$@" --socket sock --name a >out 2>err || fail "weft attach $*: $(<err)"
	grep -qE '^  key node7, of /.*key$' out || fail "weft attach $*: $(<out)"
	[[ $(shown .transport) = tcp+*tls ]] || fail "weft attach $*: $(shown .)"
	[[ $(shown .key.identity) = node7 ]] || fail "weft attach $*: $(shown .)"
	qemu-io -f raw -c 'write -P 7 0 64k' -c 'read -P 7 0 64k' "nbd+unix:///?socket=sock" >out ||
		fail "$(<out)"
	weft detach a >/dev/null
}

echo "where it is found"
attaches "$keyed" --key node7.key
weft list "$keyed" --key node7.key | grep -q scratch || fail "weft list --key"
io=$WEFT_BUILD/tests/libweft-io
[[ $(echo transport | "$io" -k node7.key "$keyed") = *tcp+*tls ]] || fail "libweft's key_file"
export WEFT_KEY=node7.key
attaches "$keyed"
weft list "$keyed" | grep -q scratch || fail "WEFT_KEY and weft list"
[[ $(echo transport | "$io" "$keyed") = *tcp+*tls ]] || fail "libweft"
weft bench "$keyed" --overwrite --time 1 --span 1M --sizes 4K --depths 1 --paths direct,socket \
	>out 2>err || fail "weft bench: $(<err)"
unset WEFT_KEY
{ cat node8.key && echo && cat node7.key; } >home/.config/weft/key
chmod 600 home/.config/weft/key
refused "home/.config/weft/key has 2 keys" weft attach "$keyed" --socket sock
attaches "${keyed/:\/\//://node7@}"
[[ $(weft list "${keyed/:\/\//://node7@}") = *scratch* ]] || fail "an identity and weft list"
attaches "$keyed" --key node7.key

echo "what is wrong"
refused "has no key of the identity 'node9'" weft attach "${keyed/:\/\//://node9@}" --socket sock
refused "did not accept the key of node8" weft attach "${keyed/:\/\//://node8@}" --socket sock
refused "does not accept the key of node8" weft list "${keyed/:\/\//://node8@}"
refused "did not accept the key of node8" "$io" "${keyed/:\/\//://node8@}"
cp node7.key open.key
chmod 644 open.key
refused "others can use $TMP/open.key: its mode is 0644" weft attach "$keyed" --socket sock \
	--key open.key
refused "others can use $TMP/open.key" weft list "$keyed" --key open.key
refused "there is no key file" weft list "$keyed" --key missing
refused "asks for a key, and --allow-insecure for none" weft attach "$keyed" --socket sock \
	--key node7.key --allow-insecure
status=0
weft list "${keyed/:\/\//://node7:secret@}" >out 2>err || status=$?
[[ $status = 2 && $(<err) = *"a password stands in it"* && $(<err) != *:secret@* ]] ||
	fail "a password in a URI: exit status $status: $(<err)"
[[ -z $(weft status --json | jq -r '.attachments[].name') ]] || fail "something is attached"

mv home/.config/weft/key kept.key
echo "no key"
address=$(hostname -I 2>/dev/null | cut -d ' ' -f 1)
if [[ $address == *.*.*.* ]]; then # over loopback this user needs none
	start_donor --keys store --memory wants=8M --listen "$address:0"
	refused "then put it into ~/.config/weft/key here" \
		weft attach "${URI/:\/\/*:/://$address:}" --socket sock --name a
fi

echo "a donor without keys"
cp node7.key home/.config/weft/key
start_donor --memory plain=8M
refused "--allow-insecure" weft attach "$URI" --socket sock --name a
refused "--allow-insecure" weft list "$URI"
refused "does not begin TLS" "$io" "$URI"
weft attach "$URI" --socket sock --name a --allow-insecure >/dev/null
[[ $(shown '.transport + " " + (.key | tostring)') = "tcp null" ]] || fail "$(shown .)"
weft detach a >/dev/null
weft list "$URI" --allow-insecure | grep -q plain || fail "weft list --allow-insecure"
[[ $(echo transport | "$io" -i "$URI") = *tcp ]] || fail "libweft's ALLOW_INSECURE"
refused "asks for a key, and --allow-insecure for none" "$io" -i -k node7.key "$URI"

echo "what is kept"
rm home/.config/weft/key
WEFT_KEY=node7.key weft attach "$keyed" --socket sock --name a >/dev/null
[[ $(weft status a) = *"  key node7, of $TMP/node7.key"* ]] || fail "$(weft status a)"
[[ $(jq -r '.key_file + " " + .identity' run/attach-a.json) = "$TMP/node7.key node7" ]] ||
	fail "$(<run/attach-a.json)"
! grep -qrF "$(cut -d: -f2 node7.key)" run || fail "a secret is in the run directory"
kill -KILL "$(weft status a --json | jq '.attachments[0].pid')"
bridge_is_dead() { [[ $(weft status a --json | jq -r '.attachments[0].state') = dead ]]; }
wait_for bridge_is_dead
[[ $(weft status a) = *"  key node7, of $TMP/node7.key"* ]] || fail "$(weft status a)"
weft attach "$keyed" --socket sock --name a >out || fail "it is not taken over"
grep -q "taken over" out || fail "$(<out)"
[[ $(shown .key.file) = "$TMP/node7.key" ]] || fail "it has another key: $(shown .)"
kill -KILL "$(weft status a --json | jq '.attachments[0].pid')"
wait_for bridge_is_dead
weft detach a >out 2>err || fail "weft detach: $(<err)"
[[ ! -s err ]] || fail "the donor was not told: $(<err)"
