# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# presets: dev asan
# processors: 2
# An RDMA device that is removed under load, and another that comes: the attachment goes on over
# TCP, and over the new device then, which was not there when the bridge started.  No request fails
# and no byte is wrong.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq

in_testbed --timeout 350 --memory 2G <<'END'
# A second interface, which has no RDMA device yet.
ip link add late0 type dummy
ip link set late0 mtu 4200 up
ip addr add 10.66.0.1/24 dev late0
start_donor --listen 0.0.0.0:0 --allow-insecure --memory r=32M --lease 60
weft list "weft://10.66.0.1:$PORT" | tee "$TMP/list"
grep -q "rdma:$PORT:$RDMA_IP" "$TMP/list" || fail "the address with a device is not offered"
weft attach "weft://10.66.0.1:$PORT/r" --socket "$TMP/s" --lanes 2 --dead-timeout 60 |
	tee "$TMP/out"
grep -q 'transport rdma' "$TMP/out" || fail "not over RDMA"
over() { [[ $(weft status r --json | jq -r '.attachments[0].transport') = "$1" ]]; }
requests() { [[ $(weft status r --json | jq '.attachments[0].requests.write') -gt $1 ]]; }
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --size=24M --rw=randwrite \
	--bssplit=4k/70:64k/30 --iodepth=4 --verify=crc32c \
	--verify_backlog=64 --verify_fatal=1 --time_based --runtime=600 --output="$TMP/fio" &
fio=$!
wait_for -t 60 requests 20
# rxe waits until everybody who has it open is gone: in the background.
rdma link del rxe0 </dev/null >/dev/null 2>&1 &
wait_for -t 60 over tcp
weft status r
n=$(weft status r --json | jq '.attachments[0].requests.write')
wait_for -t 60 requests $((n + 20))
rdma link add rxe9 type rxe netdev late0
wait_for -t 60 over rdma
n=$(weft status r --json | jq '.attachments[0].requests.write')
wait_for -t 60 requests $((n + 20))
weft status r | tee "$TMP/status"
weft status r --json |
	jq -e '.attachments[0] | .errors == 0 and .transport_changes >= 2 and (.lanes | all(.path | test("rxe9")))' >/dev/null ||
	fail "$(weft status r --json)"
weft status --prometheus >"$TMP/metrics"
grep -q '^weft_transport{name="r",donor="weft:.*",transport="rdma"} 1' "$TMP/metrics" ||
	fail "no metric"
weft status r --explain >"$TMP/explain"
grep -q ' moved ' "$TMP/explain" || fail "not in the flight recorder: $(cat "$TMP/explain")"
grep -q "goes on over transport tcp (auto: RDMA was lost" "$WEFT_RUN_DIR/attach-r.log" ||
	fail "not in the log"
! gone "$fio" || fail "fio ended: $(cat "$TMP/fio")"
kill -INT "$fio"
wait "$fio" || : # that of a signal
grep -q 'err= 0' "$TMP/fio" || fail "fio: $(cat "$TMP/fio")"
cat "$WEFT_RUN_DIR/attach-r.log"
weft detach r
stop_donor || fail "the donor's exit status: $?"
END
