# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# processors: 2
# A stock initiator after its donor was away: it goes on with the same contents, and with no others.
# What it wrote is there when the donor was killed and came back; when the memory is lost, or when
# somebody else could write, there are errors, and no byte from elsewhere.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio cmp qemu-io

in_testbed --timeout 380 --memory 2G <<'END'
. tests/srp.sh
srp_modules reconnect_delay=1 fast_io_fail_tmo=15 dev_loss_tmo=600
donor() { start_donor --listen 127.0.0.1:10809 --srp "$RDMA_IP:5555" --allow-insecure "$@"; }
stop_donor() { # SIGNAL
	kill -"$1" "$DONOR_PID"
	wait "$DONOR_PID" || :
}
donor --memory r=64M
line=$(srp_line r)
srp_login "$line,ch_count=2" || fail "no login: $(cat "$DONOR_LOG")"
random_file "$TMP/data" $((4 << 20))

echo "== killed and started again, under fio: no error, no wrong byte"
srp_fio --size=16M --numjobs=2 --offset_increment=16M --rw=randwrite --bssplit=4k/70:64k/30 \
	--time_based --runtime=12 --do_verify=0 --verify_backlog=64 &
fio=$!
holder_of() { pgrep -x weftholder; }
wait_for holder_of
for round in 1 2; do
	sleep 2 # of load
	stop_donor KILL
	donor --memory r=64M
	[[ $(srp_line r) = "$line" ]] || fail "another line after the restart: $(srp_line r)"
	back() { [[ $(cat "$RPORT/state") = running ]]; }
	wait_for -t 30 back
done
wait $fio || fail "fio, with the donor killed: $(cat "$TMP/fio"; dmesg | tail -n 20)"
dmesg | grep -q 'reconnect succeeded' || fail "it was never away: $(dmesg | tail)"

echo "== somebody else could write meanwhile: refused for good"
stop_donor KILL
start_donor --listen 127.0.0.1:10809 --allow-insecure --memory r=64M
qemu-io -f raw -c 'write -P 7 0 4096' "nbd://127.0.0.1:10809/r" >/dev/null ||
	fail "the other writer"
stop_donor KILL
donor --memory r=64M
[[ $(srp_line r) != "$line" ]] || fail "the old line still holds"
failed() { ! timeout 40 dd if="$DISK" of="$TMP/read" bs=4k count=1 iflag=direct 2>/dev/null; }
wait_for -t 60 failed
grep -q 'id_ext .* is over' "$DONOR_LOG" || fail "not refused: $(cat "$DONOR_LOG")"
[[ ! -s $TMP/read ]] || fail "bytes of other contents"
srp_logout
srp_login "$(srp_line r)" || fail "the new line does not hold"
dd if="$DISK" bs=4k count=1 iflag=direct status=none |
	cmp - <(head -c 4096 /dev/zero | tr '\0' '\7') || fail "not what the other wrote"
line=$(srp_line r)

echo "== lost memory: only errors"
dd if="$TMP/data" of="$DISK" bs=1M oflag=direct status=none
stop_donor TERM
donor --memory r=64M
[[ $(srp_line r) != "$line" ]] || fail "the old line still holds"
wait_for -t 60 failed
[[ ! -s $TMP/read ]] || fail "bytes of other contents"
timeout 60 dd if="$TMP/data" of="$DISK" bs=4k count=1 oflag=direct 2>/dev/null &&
	fail "it wrote to other contents"
cmp -n $((1 << 20)) /dev/zero <(nbdcopy nbd://127.0.0.1:10809/r - | head -c $((1 << 20))) ||
	fail "something was written to the new contents"
srp_logout
stop_donor TERM
END
echo "ok: it goes on with its own contents, and with no others"
