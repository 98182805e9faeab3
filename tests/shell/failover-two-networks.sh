# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# Two machines with RDMA on one link and TCP on the other; the borrower knows the TCP address only.
# fio verifies while the carrier of the RDMA link flaps (1 to 3 s off every few seconds), the donor
# is paused, killed and restarted: no error within the dead timeout, no wrong byte; the longest
# request is printed.  WEFT_FLAP_SECONDS: how long (300).
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio

in_testbed --nodes 2 --timeout 850 -- "${WEFT_FLAP_SECONDS:-300}" <<'END'
socket="nbd+unix:///?socket=$TMP/s" seconds=$1
serve() {
	node2 "mkdir -p -m 700 /run/donor; WEFT_RUN_DIR=/run/donor exec weft-serve --listen 0.0.0.0 --allow-insecure --memory r=48M --lease 60" >>"$TMP/donor.log" 2>&1 &
	SERVE=$!
}
listed() { timeout 5 weft list "weft://$PEER_TCP_IP" | grep -q "rdma:10809:$PEER_RDMA_IP"; }
pid_of_donor() { node2 pgrep -x weft-serve | head -n 1; }
transport() { weft status r --json | jq -r '.attachments[0].transport'; }
over() { [[ $(transport) = "$1" ]]; }
moved() { weft status r --json | jq -r '.attachments[0].transport_changes'; }

serve
wait_for -t 60 listed
weft attach "weft://$PEER_TCP_IP/r" --socket "$TMP/s" --lanes 2 --dead-timeout 60 --timeout 20
# On a slow machine not within the second that an attach gives RDMA.
wait_for -t 60 over rdma

fio --name=v --ioengine=nbd --uri="$socket" --size=20M --numjobs=2 --offset_increment=20M \
	--rw=randwrite \
	--bssplit=4k/60:64k/40 --iodepth=4 --verify=crc32c --verify_backlog=64 --verify_fatal=1 \
	--time_based --runtime="$seconds" \
	--group_reporting --output-format=json --output="$TMP/fio" &
fio=$!
fio_runs() { kill -0 "$fio" 2>/dev/null; }
RANDOM=${WEFT_SEED:-$$}
echo "== seed ${WEFT_SEED:-$$}"
end=$((SECONDS + seconds)) round=0
while ((SECONDS < end)) && fio_runs; do
	round=$((round + 1))
	case $((round % 6)) in
	3)
		donor=$(pid_of_donor)
		node2 kill -STOP "$donor"
		sleep 3
		node2 kill -CONT "$donor"
		;;
	5)
		node2 kill -KILL "$(pid_of_donor)"
		wait "$SERVE" || :
		serve
		;;
	*)
		monitor2 set_link rdma off >/dev/null
		sleep $((1 + RANDOM % 3))
		monitor2 set_link rdma on >/dev/null
		;;
	esac
	sleep $((2 + RANDOM % 4))
done
status=0
wait "$fio" || status=$?
jq -r '.jobs[0] | "== fio: \(.read.total_ios) reads, \(.write.total_ios) writes, longest read \(.read.clat_ns.max / 1e9) s, longest write \(.write.clat_ns.max / 1e9) s"' "$TMP/fio" || cat "$TMP/fio"
echo "== $round rounds, $(moved) changes of transport, now $(transport)"
cat "$WEFT_RUN_DIR/attach-r.log"
weft status r
[[ $status = 0 ]] || fail "fio: $status: $(weft status r --explain | grep -v ' us' | tail -n 60)"
[[ $(jq '.attachments[0].errors' < <(weft status r --json)) = 0 ]] || fail "requests failed"
(($(moved) >= 2)) || fail "it never moved away and back"
# Left in peace it returns to RDMA.
wait_for -t 100 over rdma
echo "== back over RDMA"
weft detach r
if dmesg | grep -E 'WARNING|BUG|Oops'; then fail "the kernel has complaints"; fi
END
