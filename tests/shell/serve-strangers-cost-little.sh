# SPDX-License-Identifier: MIT
# Thousands of half-open connections, held and opened again: an attached bridge comes back each time
# that its connection is cut and fio sees no error, newcomers attach, and the donor stays small.
# From 200 addresses, then all from the bridge's own.
# timeout: 240
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/strangers.sh"
need_tool fio jq socat

transport=tcp count=10000 seconds=${WEFT_CROWDED_S:-15} every=3
((seconds < 60)) || every=10
[[ $(ulimit -Hn) = unlimited || $(ulimit -Hn) -gt $((count + 100)) ]] ||
	skip "the limit of open files is below $count"

start_donor --memory r=64M --memory newcomer=1M
donor=127.0.0.1:$PORT
# What it passes on comes from the bridge's own address, and is cut by ending it.
relay_port=$(free_port)
socat "TCP-LISTEN:$relay_port,bind=127.0.0.1,reuseaddr,fork" "TCP:$donor,bind=127.0.0.1" &
relay=$!
attached() { weft attach "weft://127.0.0.1:$relay_port/r" --socket "$TMP/s"; }
wait_for attached
before_kb=$(rss_kb)

# crowded FIRST-ADDRESS ADDRESSES [SPEAK]
crowded() {
	local crowd fio end n=0 cut failed=0 most_kb=0
	rm -f "$TMP/crowd" # of an earlier one
	"$WEFT_BUILD/tests/crowd" 127.0.0.1 "$PORT" $count "$@" >"$TMP/crowd" &
	crowd=$!
	wait_for -t 60 grep -q there "$TMP/crowd"
	verify 8 32M 1ms
	end=$((SECONDS + seconds))
	while ((SECONDS < end)); do
		cut=$(reconnects)
		pkill -P $relay
		wait_for -t 20 came_back "$cut"
		((++n))
		newcomer_comes
		sleep $every
	done
	crowd_ends $crowd $count
	echo "from $2 address(es): cut $n times; newcomers $n, refused $failed;" \
		"$((most_kb - before_kb)) KiB more at most; $(tail -n 1 "$TMP/crowd")"
	((n >= 2)) || fail "it was cut only $n times"
	refused=$failed
}

crowded 127.1.0.1 200
((refused == 0)) || fail "$refused newcomers were refused"
crowded 127.1.0.1 200 speak
((refused == 0)) || fail "$refused newcomers were refused"
# A newcomer from the crowd's own address may have to wait, and is told why.
crowded 127.0.0.1 1
((refused == 0)) || grep -q "try again" "$TMP/newcomer" || fail "no reason: $(cat "$TMP/newcomer")"
weft status | grep -q "peers without a grant over tcp" || fail "$(weft status)"
weft status --prometheus |
	grep -q '^weft_donor_strangers_made_room_total{.*transport="tcp"} [1-9]' || fail "no metric"
weft detach r
