# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# processors: 2
# A stock initiator on another machine: every byte right when the link loses 1 % of the packets each
# way; and when that machine dies without a word, its region is free soon, for somebody else.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio

in_testbed --nodes 2 --timeout 560 <<'END'
. tests/srp.sh
start_donor --listen 127.0.0.1:0 --srp "$RDMA_IP:5555" --allow-insecure --memory r=24M --lease 5
line=$(srp_line r)
node2 "modprobe sd_mod; modprobe ib_srp reconnect_delay=1
	echo $line,ch_count=1 >\$(echo /sys/class/infiniband_srp/srp-*)/add_target" ||
	fail "no login: $(cat "$DONOR_LOG"; node2 dmesg | tail -n 5)"
there() { node2 test -b /dev/sda; }
wait_for -t 60 there
for node in "" node2; do $node tc qdisc replace dev rdma0 root netem loss 1%; done
node2 timeout 300 fio --name=v --filename=/dev/sda --direct=1 --ioengine=libaio --iodepth=16 \
	--size=12M --rw=randwrite --bssplit=4k/70:64k/30 --verify=crc32c --do_verify=1 \
	--verify_fatal=1 --minimal >"$TMP/fio" 2>&1 || fail "fio: $(cat "$TMP/fio")"
for node in "" node2; do $node tc -s qdisc show dev rdma0; done | tee "$TMP/tc"
[[ $(grep -c 'dropped [1-9]' "$TMP/tc") = 2 ]] || fail "nothing was lost"
for node in "" node2; do $node tc qdisc del dev rdma0 root; done

echo "== its machine dies"
weft status | grep "over srp" || fail "it is gone already"
start=$SECONDS
monitor2 quit
nobody_has() { ! weft status | grep -q "over srp"; }
wait_for -t 60 nobody_has
echo "free after $((SECONDS - start)) s"
weft attach "$URI" --socket "$TMP/s" --timeout 5 >/dev/null || fail "not free"
weft detach r
kill "$DONOR_PID"
END
grep 'free after' "$TMP/output"
