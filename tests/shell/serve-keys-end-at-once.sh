# SPDX-License-Identifier: MIT
# A key that is revoked, or runs out, ends what it let in within 100 ms, by the clock, on a donor
# that runs. Nobody comes back with it, the others go on, and the log and the status say whose key
# it was.
# timeout: 120
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool nbdinfo jq
over_the_network

for name in alice bob; do
	weft key new $name --store "$TMP/keys" --out "$TMP/$name.key" >/dev/null || fail "no key"
done
weft key new carol --store "$TMP/keys" --out "$TMP/carol.key" --expires 8s >/dev/null ||
	fail "no key that expires"
start_donor --memory a=1M --memory b=1M --memory c=1M --listen 192.0.2.1:0 --keys "$TMP/keys"
uri() { echo "nbds://$1@192.0.2.1:$PORT/$2?tls-psk-file=$TMP/$1.key"; }
declare -A reader
read_by() { # NAME REGION
	"$WEFT_BUILD/tests/read-until-cut" "$(uri "$1" "$2")" >"$TMP/$1.reads" 2>&1 &
	reader[$1]=$!
	wait_for grep -qx reads "$TMP/$1.reads"
}
read_by alice a
read_by bob b
read_by carol c
users() {
	weft status --json |
		jq -r '.donors[0].attachments | sort_by(.region)[] | "\(.identity) \(.encrypted)"'
}
[[ $(users) = "alice true"$'\n'"bob true"$'\n'"carol true" ]] || fail "$(weft status --json)"
user="region a: used by (stock NBD clients) (writer) from 192.0.2.1"
grep -qF "$user, encrypted, key 'alice', 1 connection" <(weft status) || fail "$(weft status)"
sample='weft_donor_attachment_connections{.*region="b".*identity="bob",encrypted="yes"} 1'
grep -q "$sample" <(weft status --prometheus) || fail "$(weft status --prometheus)"

# within MS NAME SINCE: its reads failed so long after.
within() {
	wait "${reader[$2]}" || fail "$2: $(cat "$TMP/$2.reads")"
	local took
	took=$(awk -v since="$3" 'NR == 2 {printf "%.0f", 1000 * ($1 - since)}' "$TMP/$2.reads")
	echo "$2: the next read failed $took ms after"
	((took <= $1)) || fail "$2 read for $took ms more"
}
since=$(date +%s.%N)
weft key revoke alice --store "$TMP/keys" >/dev/null
done_at=$(date +%s.%N)
within 100 alice "$done_at"
! nbdinfo "$(uri alice a)" >/dev/null 2>&1 || fail "alice is let in again"
awk 'NR == 2 {exit !($1 > '"$since"')}' "$TMP/alice.reads" || fail "alice was cut off before"
said() { grep -q "$1" "$DONOR_LOG"; }
who="key 'alice' at 192.0.2.1:[0-9]* over tcp+tls"
wait_for said "granted region 'a' to $who: writer, a stock NBD client"
wait_for said "ended a session of $who with region 'a': key 'alice' is not, or no longer,"
wait_for said "the keys in $TMP/keys have changed: there are 2 now"
wait_for said "refused 192.0.2.1:[0-9]* over tcp: .*alice"

# carol's key runs out by itself, a second late at most.
expires=$(jq -r '.keys.carol.expires' "$TMP/keys/grants.json")
within 1200 carol "$(date -d "$expires" +%s)"
wait_for said "ended a session of key 'carol' .*: its key has expired"
! nbdinfo "$(uri carol c)" >/dev/null 2>&1 || fail "carol is let in again"

# bob has read on all the time.
kill -0 "${reader[bob]}" || fail "bob was cut off: $(cat "$TMP/bob.reads")"
kill "${reader[bob]}"
[[ $(grep -c "ended a session" "$DONOR_LOG") = 2 ]] || fail "$(cat "$DONOR_LOG")"
stop_donor || fail "exit status $?"
