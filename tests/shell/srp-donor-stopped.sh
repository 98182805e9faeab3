# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# processors: 2
# A donor that is stopped (SIGSTOP) under a stock initiator, with the settings that the donor prints
# and its watchdog: there is an error within 60 s, or none at all if the donor is started again
# within fast_io_fail_tmo.  Every byte is there then.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio cmp

in_testbed --timeout 380 --memory 2G <<'END'
. tests/srp.sh
donor() {
	start_donor --listen 127.0.0.1:10809 --srp "$RDMA_IP:5555" --allow-insecure \
		--memory r=64M --watchdog 20
}
donor
printed=$(sed -n 's/^over SRP, on the borrower, first:  modprobe ib_srp //p' "$DONOR_LOG")
[[ $printed ]] || fail "no settings are printed: $(cat "$DONOR_LOG")"
# shellcheck disable=SC2086
srp_modules $printed
line=$(srp_line r)
srp_login "$line" || fail "no login: $(cat "$DONOR_LOG")"
random_file "$TMP/data" $((4 << 20))
dd if="$TMP/data" of="$DISK" bs=1M oflag=direct status=none
ended() { gone "$DONOR_PID"; }
running() { [[ $(cat "$RPORT/state") = running ]]; }

echo "== started again as soon as it was killed: no error"
srp_fio --offset=8M --size=16M --rw=randwrite --bs=4k --time_based --runtime=8 --do_verify=0 \
	--verify_backlog=32 &
fio=$!
busy() { [[ $(cat "/sys/block/${DISK##*/}/inflight") = *[1-9]* ]]; }
wait_for busy
start=$SECONDS
kill -STOP "$DONOR_PID"
wait_for -t 40 ended
echo "killed after $((SECONDS - start)) s"
donor
[[ $(srp_line r) = "$line" ]] || fail "another line after the restart: $(srp_line r)"
wait $fio || fail "fio: $(cat "$TMP/fio"; dmesg | tail -n 20)"
running || fail "$(cat "$RPORT/state")"

echo "== nobody starts it again: an error"
start=$SECONDS
kill -STOP "$DONOR_PID"
timeout 120 dd if="$DISK" of="$TMP/read" bs=4k count=1 iflag=direct 2>"$TMP/dd" &&
	fail "it read from a donor that is stopped"
took=$((SECONDS - start))
grep -q 'Input/output error' "$TMP/dd" || fail "not EIO: $(cat "$TMP/dd")"
((took <= 60)) || fail "an error after $took s: $(dmesg | tail -n 30)"
echo "EIO after $took s"
wait_for ended

echo "== started after that: the disk is back by itself"
donor
wait_for -t 60 running
dd if="$DISK" bs=1M count=4 iflag=direct status=none | cmp - "$TMP/data" || fail "other bytes"
srp_logout
kill "$DONOR_PID"
END
grep 'after [0-9]* s' "$TMP/output"
