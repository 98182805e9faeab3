# SPDX-License-Identifier: MIT
# weft status --json says what weft-status(1) says, by one name and in one unit for each thing;
# whatever there is to be said.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq qemu-io

schema=$WEFT_SRC/tests/support/status-schema.jq
check() { # what is there to see
	local wrong
	weft status --json >"$TMP/json" || fail "$1: exit status $?"
	wrong=$(jq -r --arg keys no -f "$schema" "$TMP/json") || fail "$1: jq"
	[[ ! $wrong ]] || fail "$1: $wrong"
}

check "nothing"
jq -e '. == {attachments: [], donors: [], held: []}' "$TMP/json" >/dev/null ||
	fail "$(cat "$TMP/json")"

truncate -s 4M "$TMP/file"
port=$(free_port)
start_donor --memory r=4M --file "f=$TMP/file" --listen "127.0.0.1:$port" --listen "unix:$TMP/sock"
check "a donor"
weft attach "weft://127.0.0.1:$port/r" --socket "$TMP/s1" --name one --cache 4M >/dev/null
start_donor --memory r2=4M
second=$DONOR_PID
weft attach "weft+unix:///f?socket=$TMP/sock" "$URI" --socket "$TMP/s2" --name two >/dev/null
check "attachments without requests"
qemu-io -f raw -c 'write -P 1 0 64k' -c 'read 0 64k' \
	-c flush "nbd+unix:///?socket=$TMP/s1" >/dev/null
qemu-io -f raw -c 'write -P 1 0 64k' "nbd+unix:///?socket=$TMP/s2" >/dev/null
check "attachments, of one donor with a cache, of two donors"
jq -e '.attachments | map(.name) == ["one", "two"] and (.[0].donors | length) == 1 and (.[0].donors[0].uri | startswith("weft://")) and
	.[0].generation == "1.0" and .[0].cache.hits > 0 and .[1].cache == null and .[0].epoch == .[0].donors[0].epoch' "$TMP/json" >/dev/null ||
	fail "$(cat "$TMP/json")"
jq -e '.donors | map(.attachments) | add | map(.name) | sort == ["one", "two", "two"]' "$TMP/json" \
	>/dev/null || fail "$(cat "$TMP/json")"

# Of whom no answer comes.
kill -KILL "$(jq '.attachments[] | select(.name == "one").pid' "$TMP/json")"
kill -KILL "$second"
wait_for gone "$second"
check "a bridge and a donor that were killed"
jq -e '.attachments[0].state == "dead" and (.held | length) == 1' "$TMP/json" >/dev/null ||
	fail "$(cat "$TMP/json")"

# Names: sizes in bytes and times in seconds, and no other unit; and the manual has all of them.
jq -rn --arg keys yes -f "$schema" >"$TMP/keys"
(($(wc -l <"$TMP/keys") > 60)) || fail "no keys"
! grep -E '(_(ms|us|ns|kib|mib|sec|seconds|size)|^bytes)$' "$TMP/keys" ||
	fail "another unit, or none"
while read -r key; do
	grep -qE "(^|[^a-z_])$key([^a-z_]|$)" "$WEFT_SRC/fabric/man/weft-status.1" ||
		fail "weft-status(1) does not name $key"
done <"$TMP/keys"
