# SPDX-License-Identifier: MIT
# An attachment whose donor lost its contents is reset under its key, or under what has taken the
# key's place in its file; striped ones have a key for each donor.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq qemu-io

cd "$TMP"
weft key new node7 --store store --out node7.key >/dev/null
weft key new node8 --store other --out node8.key >/dev/null
cat node7.key node8.key >key
chmod 600 key
port=$(free_port)
start_donor --listen "127.0.0.1:$port" --keys store --memory r=8M
first=${URI/:\/\//://node7@}
lost=$DONOR_PID
start_donor --keys other --memory r=8M
weft attach "$first" "${URI/:\/\//://node8@}" --socket sock --name a --key key >/dev/null
shown() { weft status a --json | jq -r ".attachments[0] | $1"; }
is() { [[ $(shown .state) = "$1" ]]; }
has() { [[ $(shown '[.donors[].key.identity] | join(" ")') = "$1" ]]; }
has "node7 node8" || fail "$(shown .)"
[[ $(shown '[.donors[].transport] | unique[]') = tcp+*tls ]] || fail "$(shown .)"

kill "$lost"
wait "$lost" || :
weft key rotate node7 --store store --out new >/dev/null
weft key rotate node7 --store store --finish >/dev/null
cat new node8.key >key
start_donor --listen "127.0.0.1:$port" --keys store --memory r=8M
wait_for is stale
weft reset a >/dev/null
wait_for is ready
has "node7~2 node8" || fail "$(shown .)"
qemu-io -f raw -c 'write -P 7 0 1M' -c 'read -P 7 0 1M' "nbd+unix:///?socket=sock" >out ||
	fail "$(<out)"
weft detach a >/dev/null
