# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# A stock initiator that logs out under load, again and again.  What was answered is there
# afterwards, nothing else is, the kernel has no complaint, and what the donor had for it is given
# back.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool python3

in_testbed --timeout 860 --memory 2G <<'END'
. tests/srp.sh
srp_modules reconnect_delay=1 fast_io_fail_tmo=5 dev_loss_tmo=60
start_donor --listen 127.0.0.1:10809 --srp "$RDMA_IP:5555" --allow-insecure --memory r=32M
login() { srp_login_again "$(srp_line r)"; }
login
srp_logout
donor_uses
for ((i = 0; i < 4; i++)); do
	login
	disk_load "$TMP/notes" 64 5 8
	srp_logout
	disk_load_ends "$TMP/notes" 3
	donor_as_before
done
login
disk_io check "$TMP/notes" 64 5
echo "right: $(cat "$TMP/io") ($SECONDS s)"
srp_logout
kill "$DONOR_PID"
wait "$DONOR_PID" || fail "the donor's end: $?"
END
grep "^right:" "$TMP/output"
