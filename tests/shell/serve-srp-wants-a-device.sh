# SPDX-License-Identifier: MIT
# A donor that is told to lend over SRP, on a machine without an RDMA device, does not start: those
# who were to have disks would find out only later.  It says what to do, and leaves nothing behind.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
! compgen -G "/sys/class/infiniband/*" >/dev/null || skip "this machine has an RDMA device"

says() { grep -q "$1" "$TMP/out" || fail "it does not say $2"; }
for where in 5555 127.0.0.1:5555; do
	status=0
	timeout 60 weft-serve --listen 127.0.0.1:0 --srp $where --memory r=1M >"$TMP/out" 2>&1 ||
		status=$?
	cat "$TMP/out"
	[[ $status = 1 ]] || fail "--srp $where: exit status $status"
	says 'error: --srp: .*this machine has no RDMA device (.*rdma link add' "what to do"
	says 'without --srp this donor lends to all others' "the other way"
	! grep -qx ready "$TMP/out" || fail "it was ready"
	[[ ! $(our_processes) ]] || fail "something is left: $(our_processes)"
done

# Over RDMA, where that can be had, is no wish: it goes on without.
start_donor --memory r=1M
stop_donor || fail "a donor without --srp: $?"
