# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# presets: dev asan
# processors: 2
# The RDMA driver is unloaded under load. With auto, requests go on over TCP; with --transport rdma
# they fail within the dead timeout, and the bridge can be ended. Nothing of ours keeps the driver
# once the programs have ended; loaded again, all works as before.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq

in_testbed --timeout 380 --memory 2G <<'END'
port=$(free_port)
start_donor --listen "$RDMA_IP:$port" --allow-insecure --memory a=32M --memory r=32M --lease 60
weft attach "weft://$RDMA_IP:$port/a" --socket "$TMP/a" --lanes 2 --dead-timeout 60 | tee "$TMP/out"
grep -q 'transport rdma' "$TMP/out" || fail "not over RDMA"
weft attach "weft://$RDMA_IP:$port/r" --device --device-kind nbd --lanes 2 --dead-timeout 5 \
	--transport rdma | tee "$TMP/out"
grep -q 'device /dev/nbd0' "$TMP/out" || fail "no device"
over() { [[ $(weft status a --json | jq -r '.attachments[0].transport') = "$1" ]]; }
requests() { [[ $(weft status "$1" --json | jq '.attachments[0].requests.write') -gt $2 ]]; }
work=(--size=24M --rw=randwrite --bssplit=4k/70:64k/30 --iodepth=4 --verify=crc32c --verify_backlog=64 --verify_fatal=1 --time_based
	--verify_state_save=0 --runtime=600)
fio --name=a --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/a" "${work[@]}" --output="$TMP/fio.a" &
fio_a=$!
fio --name=r --ioengine=libaio --direct=1 --filename=/dev/nbd0 "${work[@]}" \
	--output="$TMP/fio.r" >/dev/null 2>&1 &
fio_r=$!
wait_for -t 60 requests a 20
wait_for -t 60 requests r 20

echo "== unloaded"
seconds=$SECONDS
# The kernel does not unload a driver whose devices are open; its device goes first, and waits for
# them: in the background.
rdma link del rxe0 </dev/null >"$TMP/del" 2>&1 &
del=$!
! modprobe -r rdma_rxe 2>"$TMP/rmmod" || fail "the driver was not in use"
wait_for -t 60 over tcp
n=$(weft status a --json | jq '.attachments[0].requests.write')
wait_for -t 60 requests a $((n + 20))
wait_for -t 60 gone "$fio_r"
echo "fio over RDMA alone ended after $((SECONDS - seconds)) s"
((SECONDS - seconds <= 45)) || fail "its requests failed only after $((SECONDS - seconds)) s"
! wait "$fio_r" || fail "it met no error"
grep -qi 'Input/output error' "$TMP/fio.r" || fail "fio: $(cat "$TMP/fio.r")"
weft status
timeout 60 weft detach --force r >"$TMP/out" 2>&1 || grep -q 'is detached, but' "$TMP/out" ||
	fail "detach: $(cat "$TMP/out")"
! gone "$fio_a" || fail "fio over TCP ended: $(cat "$TMP/fio.a")"
kill -INT "$fio_a"
wait "$fio_a" || :
grep -q 'err= 0' "$TMP/fio.a" || fail "fio: $(cat "$TMP/fio.a")"
weft status a --json | jq -e '.attachments[0].errors == 0' >/dev/null ||
	fail "requests failed over TCP"
weft detach a
stop_donor || fail "the donor's exit status: $?"
wait_for -t 60 gone "$del"
modprobe -r rdma_rxe || fail "somebody has the driver still"

echo "== loaded again"
interface=$(ip -o -4 addr show | awk -v ip="$RDMA_IP" '$4 ~ "^" ip "/" {print $2}')
modprobe rdma_rxe
rdma link add rxe0 type rxe netdev "$interface"
start_donor --listen "$RDMA_IP:$port" --allow-insecure --memory r=32M --lease 60
weft attach "weft://$RDMA_IP:$port/r" --device --device-kind nbd --lanes 2 --transport rdma \
	--wait 90 || fail "attach anew"
fio --name=v --filename=/dev/nbd0 --ioengine=libaio --direct=1 --size=8M --rw=randwrite --bs=64k \
	--iodepth=4 --verify=crc32c --do_verify=1 \
	--verify_state_save=0 --minimal >"$TMP/fio" || fail "fio: $(cat "$TMP/fio")"
weft detach r
stop_donor || fail "the donor's exit status: $?"
nobody_complains hung
END
