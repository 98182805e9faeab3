# SPDX-License-Identifier: MIT
# Thousands of half-open connections, held and opened again: an attached bridge comes back each time
# that its connection is cut and fio sees no error, newcomers attach, and the donor stays small.
# From 200 addresses, then all from the bridge's own.
# timeout: 240
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio jq socat

count=10000 seconds=${WEFT_CROWDED_S:-15} every=3
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
rss_kb() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$DONOR_PID/status"; }
reconnects() { weft status r --json | jq '.attachments[0].reconnects'; }
came_back() \
	{ [[ $(reconnects) -gt $1 && $(weft status r --json | jq -r '.attachments[0].state') = ready ]]; }
stranger() { weft status --json | jq ".donors[0].strangers.tcp.$1"; }
newcomer() { # attaches and detaches
	weft attach "weft://$donor/newcomer" --socket "$TMP/n" >"$TMP/newcomer" 2>&1 &&
		weft detach newcomer >>"$TMP/newcomer" 2>&1
}
before_kb=$(rss_kb)

# crowded FIRST-ADDRESS ADDRESSES [SPEAK]
crowded() {
	local crowd end n=0 cut tried=0 failed=0 most_kb=0 kb
	"$WEFT_BUILD/tests/crowd" 127.0.0.1 "$PORT" $count "$@" >"$TMP/crowd" &
	crowd=$!
	wait_for -t 60 grep -q there "$TMP/crowd"
	fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw --bs=4k \
		--iodepth=8 --size=32M --verify=crc32c \
		--verify_state_save=0 --verify_fatal=1 --time_based --runtime="$seconds" \
		--thinktime=1ms >"$TMP/fio" 2>&1 &
	local fio=$!
	end=$((SECONDS + seconds))
	while ((SECONDS < end)); do
		cut=$(reconnects)
		pkill -P $relay
		wait_for -t 20 came_back "$cut"
		((++n, ++tried))
		newcomer || { ((++failed)) && cat "$TMP/newcomer"; }
		kb=$(rss_kb)
		((most_kb = kb > most_kb ? kb : most_kb))
		sleep $every
	done
	wait $fio || fail "fio: $(tail "$TMP/fio")"
	[[ $(stranger now) -le $(stranger max) ]] || fail "$(weft status --json)"
	[[ $(stranger made_room) -gt $count ]] || fail "nobody made room: $(weft status --json)"
	kill $crowd
	wait $crowd
	echo "from $2 address(es): cut $n times; newcomers $tried, refused $failed; $((most_kb - before_kb)) KiB more at most; $(tail -n 1 "$TMP/crowd")"
	weft status r --json | jq -e '.attachments[0].errors == 0' >/dev/null ||
		fail "$(weft status r --json)"
	((most_kb - before_kb < 64 * 1024)) || fail "the donor grew by $((most_kb - before_kb)) KiB"
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
