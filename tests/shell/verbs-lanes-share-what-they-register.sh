# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# presets: dev asan
# processors: 2
# The cache that four lanes fetch into over RDMA counts once against the limit on locked memory, and
# is let go of with the last of them.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool nbdcopy cmp

in_testbed --timeout 350 --memory 1800M <<'END'
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=96M
socket="nbd+unix:///?socket=$TMP/s"
pinned_mib() { echo $(($(sed -n 's/^VmPin:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status") >> 10)); }
for lanes in 1 4; do
	weft attach "weft://$RDMA_IP:$PORT/r" --socket "$TMP/s" --lanes $lanes --cache 64M \
		--transport rdma || fail "attach"
	pid=$(pgrep -x weft-attach)
	echo "$lanes lanes: $(pinned_mib) MiB are locked"
	(($(pinned_mib) >= 64 && $(pinned_mib) < 128)) || fail "$lanes lanes lock $(pinned_mib) MiB"
	random_file "$TMP/data" $((96 << 20))
	nbdcopy --connections=4 --flush "$TMP/data" "$socket" || fail "nbdcopy to it"
	nbdcopy --connections=4 "$socket" "$TMP/back" || fail "nbdcopy from it"
	cmp "$TMP/data" "$TMP/back" || fail "other bytes"
	weft detach r || fail "detach"
done
# With a limit that the cache fits in once.
install -d -m 700 -o 65534 "$TMP/nobody"
chmod 755 "$TMP"
as_nobody() \
	{ WEFT_RUN_DIR=$TMP/nobody prlimit --memlock=$((112 << 20)) setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
as_nobody weft attach "weft://$RDMA_IP:$PORT/r" --socket "$TMP/nobody/s" --lanes 4 --cache 64M \
	--transport rdma || fail "attach with a limit"
as_nobody weft detach r || fail "detach"
stop_donor || fail "the donor's exit status: $?"
END
