# SPDX-License-Identifier: MIT
# tier: long
# timeout: 120
# presets: release dev
# serial
# Two donors, each behind a link of its own with a rate limit: a device striped over both is at
# least 1.6 times as fast as one.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio jq ip tc

ns=weft-$$
remove() {
	local n # the caller counts with i
	for n in 1 2; do
		ip link del "wt$n.$$"
		ip netns del "$ns-$n"
	done 2>/dev/null
}
cleanup_add remove
for i in 1 2; do
	ip netns add "$ns-$i" 2>/dev/null || skip "network namespaces cannot be made here"
	ip link add "wt$i.$$" type veth peer name eth0 netns "$ns-$i" || skip "no veth"
	ip addr add "10.20$i.77.1/24" dev "wt$i.$$"
	ip link set "wt$i.$$" up
	ip -n "$ns-$i" addr add "10.20$i.77.2/24" dev eth0
	ip -n "$ns-$i" link set eth0 up
	ip -n "$ns-$i" link set lo up
	tc qdisc add dev "wt$i.$$" root tbf rate 160mbit burst 64k latency 50ms || skip "no tbf"
	ip netns exec "$ns-$i" tc qdisc add dev eth0 root tbf rate 160mbit burst 64k latency 50ms
	mkdir -m 700 "$TMP/$i"
	ip netns exec "$ns-$i" env WEFT_RUN_DIR="$TMP/$i" "$WEFT_BIN/weft-serve" --listen 0.0.0.0 \
		--allow-insecure --memory r=64M \
		>"$TMP/$i.log" 2>&1 &
	donors[i]=$!
	cleanup_add "kill ${donors[i]} 2>/dev/null"
	wait_for grep -qx ready "$TMP/$i.log"
done

rate() { # SOCKET DIRECTION: KiB/s
	fio --name=x --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/$1" --size=60M --rw="$2" \
		--bs=1M --iodepth=8 --time_based --runtime=4 \
		--output-format=json --output="$TMP/fio" >/dev/null || fail "fio: $(cat "$TMP/fio")"
	jq '.jobs[0] | .read.bw + .write.bw' "$TMP/fio"
}
weft attach weft://10.201.77.2/r --name one --socket "$TMP/one" >/dev/null
one=("$(rate one read)" "$(rate one write)")
weft detach one
weft attach weft://10.201.77.2/r weft://10.202.77.2/r --name two --new-contents \
	--socket "$TMP/two" >/dev/null
two=("$(rate two read)" "$(rate two write)")
weft detach two
echo "KiB/s: one donor ${one[0]} read, ${one[1]} written; two ${two[0]} and ${two[1]}"
((two[0] * 10 >= one[0] * 16 && two[1] * 10 >= one[1] * 16)) ||
	fail "two donors are not 1.6 times one"
for i in 1 2; do
	kill "${donors[i]}"
	wait "${donors[i]}" || fail "donor $i: $?"
done
