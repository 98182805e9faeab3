# SPDX-License-Identifier: MIT
# Hundreds of half-open RDMA connections, held and opened again: an attached bridge comes back each
# time that its connections are cut and fio sees no error, newcomers attach, and the donor stays
# small.  From 200 addresses, then all from the bridge's own.
# timeout: 600
# serial
# processors: 2
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq

seconds=${WEFT_CROWDED_S:-10} every=5
((seconds < 60)) || every=10

in_testbed --timeout $((6 * seconds + 300)) --memory 2G -- "$seconds" "$every" <<'END'
. tests/strangers.sh
seconds=$1 every=$2 count=500 transport=rdma
for ((i = 1; i <= 200; i++)); do
	ip addr add "10.9.0.$((i + 10))/24" dev rdma0
done
all_gids() { [[ $(grep -l ffff:0a09 /sys/class/infiniband/rxe0/ports/1/gids/* | wc -l) -gt 200 ]]; }
wait_for all_gids
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=32M --memory newcomer=1M
donor=$RDMA_IP:$PORT
# The library is built with the sanitizer that the program brings.
ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 \
	WEFT_CUT_S=$every LD_PRELOAD=$WEFT_BUILD/tests/cut-rdma.so weft attach "weft://$donor/r" \
	--socket "$TMP/s" --transport rdma
newcomer || fail "$(cat "$TMP/newcomer")"
before_kb=$(rss_kb)

# crowded FIRST-ADDRESS ADDRESSES
crowded() {
	local crowd fio end n=0 failed=0 most_kb=0 before first
	rm -f "$TMP/crowd" # of an earlier one
	"$WEFT_BUILD/tests/crowd-rdma" "$RDMA_IP" "$PORT" $count "$@" >"$TMP/crowd" 2>&1 &
	crowd=$!
	wait_for -t 60 grep -q there "$TMP/crowd"
	verify 4 16M 2ms
	end=$((SECONDS + seconds)) first=$(reconnects)
	while ((SECONDS < end)); do
		before=$(reconnects)
		wait_for -t $((every + 30)) came_back "$before"
		((++n))
		newcomer_comes
	done
	crowd_ends $crowd $count
	echo "from $2 address(es): $(($(reconnects) - first)) reconnects; newcomers $n, refused" \
		"$failed; $((most_kb - before_kb)) KiB more at most; $(tail -n 1 "$TMP/crowd")"
	refused=$failed
}

crowded 10.9.0.11 200
((refused == 0)) || fail "$refused newcomers were refused"
# A newcomer from the crowd's own address may have to wait, and is told why.
crowded "$RDMA_IP" 1
((refused == 0)) || grep -q "try again" "$TMP/newcomer" || fail "no reason: $(cat "$TMP/newcomer")"
weft detach r
END
