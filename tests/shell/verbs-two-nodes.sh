# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# processors: 2
# Two machines over soft-RoCE: every byte right when the link loses 1 % of the packets each way, and
# when it takes 2 ms each way; a link that fails for 5 s is waited for; a donor's machine that dies
# without a word ends in errors, soon.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio nbdcopy cmp

in_testbed --nodes 2 --timeout 500 <<'END'
uri=weft://$PEER_RDMA_IP:10809/r socket="nbd+unix:///?socket=$TMP/s"
node2 "WEFT_RUN_DIR=/run weft-serve --listen 0.0.0.0 --allow-insecure --memory r=24M" \
	>"$TMP/donor.log" 2>&1 &
listed() { timeout 5 weft list "weft://$PEER_TCP_IP" | grep -q rdma; }
wait_for -t 30 listed
weft attach "$uri" --socket "$TMP/s" --lanes 1 --dead-timeout 25 | tee "$TMP/out"
grep -q 'transport rdma' "$TMP/out" || fail "not over RDMA"
random_file "$TMP/data" $((24 << 20))

netem() { # ARGUMENT…: on both ends of the link
	tc qdisc replace dev rdma0 root netem "$@"
	node2 tc qdisc replace dev rdma0 root netem "$@"
}
round() { # NAME
	local start=$SECONDS
	timeout 150 nbdcopy --request-size=65536 "$TMP/data" "$socket" || fail "$1: nbdcopy to it"
	timeout 150 nbdcopy --request-size=65536 "$socket" "$TMP/back" || fail "$1: nbdcopy from it"
	cmp "$TMP/data" "$TMP/back" || fail "$1: other bytes"
	timeout 150 fio --name=v --ioengine=nbd --uri="$socket" --size=4M --rw=randwrite --bs=4k \
		--iodepth=16 \
		--verify=crc32c --do_verify=1 --minimal >"$TMP/fio" ||
			fail "$1: fio: $(cat "$TMP/fio")"
	timeout 150 nbdcopy --request-size=65536 "$TMP/data" "$socket" ||
		fail "$1: nbdcopy to it again"
	echo "== $1: $((SECONDS - start)) s, $(weft status r | grep -o '[0-9]* reconnects*')"
}
round "clean"
netem loss 1%
round "1 % lost each way"
for node in "" node2; do $node tc -s qdisc show dev rdma0; done | tee "$TMP/tc"
[[ $(grep -c 'dropped [1-9]' "$TMP/tc") = 2 ]] || fail "nothing was lost"
netem delay 2ms
round "2 ms each way"
[[ $(for node in "" node2; do $node tc qdisc show dev rdma0; done | grep -c 'delay 2ms') = 2 ]] ||
	fail "no delay"
netem delay 0ms

start=$SECONDS
timeout 60 nbdcopy "$TMP/data" "$socket" &
copy=$!
monitor2 set_link rdma off >/dev/null
sleep 5 # the outage's length
monitor2 set_link rdma on >/dev/null
wait "$copy" || fail "the copy across an outage failed: $(weft status r)"
timeout 60 nbdcopy "$socket" "$TMP/back" || fail "nbdcopy after an outage: $(weft status r)"
cmp "$TMP/data" "$TMP/back" || fail "other bytes after an outage"
echo "== a link down for 5 s: $((SECONDS - start)) s, $(weft status r | grep -o '[0-9]* reconnects*')"

weft detach r
weft attach "$uri" --socket "$TMP/s" --lanes 1 --dead-timeout 2 >/dev/null
monitor2 quit >/dev/null
start=$SECONDS
! timeout 60 nbdcopy "$TMP/data" "$socket" 2>"$TMP/err" || fail "wrote to a dead machine"
echo "== a dead machine: $(cat "$TMP/err") after $((SECONDS - start)) s: $(weft status r | head -n 1)"
((SECONDS - start < 15)) || fail "that took long"
! timeout 60 weft detach --force r >"$TMP/err" 2>&1 ||
	fail "the last FLUSH cannot have been carried out"
grep -q "is detached, but" "$TMP/err" || fail "$(cat "$TMP/err")"
if dmesg | grep -E 'WARNING|BUG|Oops'; then fail "the kernel has complaints"; fi
END
