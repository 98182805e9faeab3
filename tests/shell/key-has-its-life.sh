# SPDX-License-Identifier: MIT
# weft key: a key is made, shown, rotated and revoked; nobody else can read what has a secret; no
# secret is shown; what is there is never overwritten.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

cd "$TMP"
key() { weft key "$@" --store store >out 2>err || fail "weft key $*: exit status $?: $(<err)"; }
refused() { # TEXT ARGUMENT…
	local status=0
	weft key "${@:2}" --store store >out 2>err || status=$?
	[[ $status = 1 && ! -s out && $(<err) = "weft-key: "*"$1"* ]] ||
		fail "weft key ${*:2}: exit status $status: $(cat out err)"
}
# What the list says of a name, by jq.
row() {
	weft key list --store store --json | jq -r ".keys[] | select(.name == \"$1\") | $2"
}
shows_no_secret() {
	local secret
	while IFS=: read -r _ secret; do
		! grep -qF "$secret" out err || fail "a secret is shown"
	done <store/keys.psk
}

# The umask takes nothing and gives nothing.
umask 000
echo "new"
key new node7
grep -q "which is new: start donors that run again" out || fail "$(<out)"
shows_no_secret
[[ $(stat -c %a node7.key store/keys.psk store/grants.json store) = $'600\n600\n600\n700' ]] ||
	fail "modes: $(stat -c '%n %a' node7.key store/* store)"
cmp node7.key store/keys.psk || fail "donor and borrower have other keys"
grep -qxE 'node7:[0-9a-f]{64}' node7.key || fail "it is no line of psktool's"
grep -qxF '    scp -p node7.key BORROWER:.config/weft/key' out || fail "$(<out)"
refused "there is a key of 'node7' already" new node7 --out other
[[ ! -e other ]] || fail "a file of no key is left behind"
key new 'node-8.x' --out n8 --region scratch --region 'a b' --read-only --max-memory 1.5G \
	--max-sessions 4 --from 192.0.2.0/24 --from 2001:db8::7 --expires 90d --rdma-plaintext \
	--admin
grep -q "donors that run know it" out || fail "$(<out)"
cp n8 kept
refused "n8 is there already" new node9 --out n8
cmp n8 kept || fail "a file was overwritten"
ln -s nowhere link
refused "link is there already" new node9 --out link
[[ ! -e nowhere ]] || fail "a link was followed"
[[ ! $(row node9 .) ]] || fail "a key without a file is in the store"
refused "cannot write missing/k: No such file or directory" new node9 --out missing/k

echo "list"
key list
shows_no_secret
grep -qE '^node7 +node7 +never +all regions$' out || fail "$(<out)"
expected='^node-8\.x +node-8\.x +20[0-9-]+T[0-9:]+Z +region scratch, a b; read-only; at most '
expected+='1\.5 GiB; at most 4 sessions; from 192\.0\.2\.0/24, 2001:db8::7/128; RDMA in plaintext; '
expected+='admin$'
grep -qE "$expected" out || fail "$(<out)"
key list --json
shows_no_secret
schema() {
	jq -r --arg of keyring --arg keys "$1" -f "$WEFT_SRC/tests/support/status-schema.jq"
}
wrong=$(schema no <out) || fail "jq: $(<out)"
[[ ! $wrong ]] || fail "$wrong"
fields='[.regions, .read_only, .max_bytes, .max_sessions, .from, .rdma_plaintext, .admin, .usable]'
expected='[["scratch","a b"],true,1610612736,4,["192.0.2.0/24","2001:db8::7/128"],true,true,true]'
[[ $(row node-8.x "$fields | tostring") = "$expected" ]] || fail "$(<out)"
schema yes <out >fields
(($(wc -l <fields) == 16)) || fail "$(<fields)"
while read -r field; do
	grep -qE "(^|[^a-z_])$field([^a-z_]|$)" "$WEFT_SRC/fabric/man/weft-key.1" ||
		fail "weft-key(1) does not name $field"
done <fields

echo "rotate"
refused "no rotation is under way" rotate node7 --finish
key rotate node7
shows_no_secret
grep -qxE 'node7~2:[0-9a-f]{64}' node7~2.key || fail "$(<out)"
[[ $(row node7 '.identity + " " + .other_identity') = "node7~2 node7" ]] || fail "$(row node7 .)"
key list
grep -qF 'node7 too, until: weft key rotate node7 --finish' out || fail "$(<out)"
refused "'node7' has two keys already" rotate node7 --out third
[[ ! -e third ]] || fail "a file of no key is left behind"
key rotate node7 --finish
cut -d: -f1 store/keys.psk | sort | paste -sd ' ' >names
[[ $(<names) = "node-8.x node7~2" ]] || fail "$(<names)"
key rotate node7 --out again
grep -qE '^node7:' again || fail "the first identity is not free again"
! cmp -s again node7.key || fail "an old key has come back"

echo "expiry"
key new late --expires 1s
has_expired() { [[ $(row late .expired) = true ]]; }
wait_for has_expired
[[ $(row late .usable) = false ]] || fail "$(row late .)"
key list
grep -qE '^late +late +has expired' out || fail "$(<out)"

echo "revoke"
key revoke node7
[[ $(cut -d: -f1 store/keys.psk | sort | paste -sd ' ') = "late node-8.x" ]] || fail "$(<out)"
! grep -q node7 store/grants.json || fail "grants are left behind"
refused "has no key of 'node7'" revoke node7
refused "has no key of 'node7'" rotate node7
key new node7 --out node7-again
# With a slip in it donors take none of the store: then nothing can be over for them.
cp store/grants.json kept-grants
jq '.keys.late.color = 1' kept-grants >store/grants.json
refused "grants.json, 'late': the field 'color' is unknown" revoke node7
[[ $(jq -r '.keys | keys_unsorted | length' store/grants.json) = 3 ]] || fail "it was changed"
key revoke late
key revoke node7

echo "a region's name is nobody's order to the terminal"
key new odd --region $'a\e[31mb'
key list
grep -qF 'region a?[31mb' out || fail "$(cat -v out)"
key revoke odd

echo "what others may use"
chmod 640 store/keys.psk
refused "others can use store/keys.psk: its mode is 0640" list
refused "chmod 600 store/keys.psk" new node10
chmod 600 store/keys.psk
chmod 720 store
refused "others can write to store" revoke node7
