# SPDX-License-Identifier: MIT
# tier: long
# timeout: 700
# presets: dev asan
# processors: 2
# Two machines with RDMA on one link, TCP and QUIC on the other, which is a long one.  While fio
# writes and verifies, RDMA is lost and the attachment goes on over QUIC; RDMA comes back and takes
# over from QUIC.  That happens twice: no request fails, no byte is wrong, and each change is told.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_testbed
need_tool fio jq
need_quic

# The donor's machine reads them where they are; it cannot see what the borrower's writes.
mkdir -m 700 "$TMP/keys"
weft key new alice --store "$TMP/keys/store" --out "$TMP/keys/alice" --rdma-plaintext >/dev/null

in_testbed --nodes 2 --timeout 650 -- "$TMP/keys" <<'END'
keys=$1
tc qdisc add dev tcp0 root netem delay 15ms
node2 "mkdir -p -m 700 /run/donor; WEFT_RUN_DIR=/run/donor exec weft-serve --listen 0.0.0.0 \
	--quic 10810 --keys $keys/store --memory r=24M --lease 60" >"$TMP/donor.log" 2>&1 &
listed() {
	timeout 5 weft list "weft://$PEER_TCP_IP" --key "$keys/alice" |
		grep -q "rdma:10809:$PEER_RDMA_IP.*quic:10810"
}
wait_for -t 60 listed
weft attach "weft://$PEER_TCP_IP/r" --key "$keys/alice" --socket "$TMP/s" --lanes 2 \
	--dead-timeout 60 --timeout 20
now() { weft status r --json | jq -r ".attachments[0]$1"; }
over() { [[ $(now .transport) = "$1" ]]; }
wait_for -t 60 over rdma

fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --size=10M --numjobs=2 \
	--offset_increment=12M --rw=randwrite --bssplit=4k/60:64k/40 --iodepth=4 \
	--verify=crc32c --verify_backlog=64 --verify_fatal=1 --time_based --runtime=600 \
	--group_reporting --output="$TMP/fio" &
fio=$!
has_written() { (($(now .requests.write) > $1)); }
goes_on() {
	wait_for -t 60 has_written $(($(now .requests.write) + 20))
	! gone "$fio" || fail "fio ended: $(cat "$TMP/fio")"
}
goes_on
for round in 1 2; do
	monitor2 set_link rdma off >/dev/null
	wait_for -t 60 over quic
	goes_on
	weft status r | grep 'transport'
	monitor2 set_link rdma on >/dev/null
	wait_for -t 60 over rdma
	goes_on
	weft status r | grep 'transport'
done
kill -INT "$fio"
wait "$fio" || : # that of a signal
cat "$WEFT_RUN_DIR/attach-r.log"
grep -q 'err= 0' "$TMP/fio" || fail "fio: $(cat "$TMP/fio")"
[[ $(now .errors) = 0 ]] || fail "requests failed: $(weft status r)"
for said in 'transport quic (auto: QUIC works again' 'transport rdma (auto: RDMA works again'; do
	(($(grep -c "goes on over $said" "$WEFT_RUN_DIR/attach-r.log") >= 2)) ||
		fail "not told: $said"
done
weft detach r
END
