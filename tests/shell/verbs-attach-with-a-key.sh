# SPDX-License-Identifier: MIT
# timeout: 400
# presets: dev
# processors: 2
# A donor with keys over soft-RoCE: whose key is for plaintext goes over RDMA, which both sides of
# the status say; others go over TLS, and learn why; a key that is revoked ends the attachment.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool nbdcopy cmp

in_testbed --timeout 300 <<'END'
cd "$TMP"
for name in slow fast other; do
	option=
	[[ $name = slow ]] || option=--rdma-plaintext
	weft key new $name --store keys $option >/dev/null
done
# Where the machine is busy a donor may not say in time what it offers.
attach() {
	local try
	for try in 1 2 3 4; do
		weft attach "$@" --socket "$TMP/s" >out 2>&1 || return
		grep -q "to say what it offers" out && ((try < 4)) || return 0
		weft detach r
	done
}
random_file image 4M
start_donor --listen "$RDMA_IP:0" --keys keys --memory r=4M --lease 10
socket="nbd+unix:///?socket=$TMP/s" uri=weft://$RDMA_IP:$PORT/r

echo "== a key that is not for plaintext"
attach "$uri" --key slow.key || fail "$(cat out)"
grep 'transport tcp+k\?tls (auto: RDMA was tried: .*--rdma-plaintext' out || fail "$(cat out)"
timeout 60 nbdcopy image "$socket"
weft detach r
! attach "$uri" --key slow.key --transport rdma || fail "over RDMA: $(cat out)"
grep 'in plaintext, which key .slow. is not for.*--rdma-plaintext' out || fail "$(cat out)"

echo "== one that is"
attach "$uri" --key fast.key --lanes 2 || fail "$(cat out)"
grep 'transport rdma (auto: .*), in plaintext, 2 lanes' out || fail "$(cat out)"
timeout 60 nbdcopy "$socket" back && cmp image back || fail "other bytes"
weft status | tee status
grep -q 'transport rdma (auto: .*), in plaintext, 2 lanes' status || fail "the borrower's status"
grep -q "over rdma, in plaintext, key .fast., 2 connections" status || fail "the donor's status"
timeout 60 nbdcopy image "$socket"

echo "== a donor that is killed proves the key anew"
wait_for pgrep -x weftholder
stop_donor KILL || :
start_donor --listen "$RDMA_IP:$PORT" --keys keys --memory r=4M --lease 10
timeout 60 nbdcopy "$socket" back && cmp image back || fail "other bytes after a restart"
# Meanwhile it may have gone over TLS.
is_back() { weft status r | grep -q '; transport rdma'; }
wait_for -t 60 is_back || fail "$(weft status r)"

echo "== revoked"
weft key revoke fast --store keys >/dev/null
is_out() { weft status r | grep -qE 'reconnecting.*(key .fast.|key of fast)'; }
wait_for -t 30 is_out || fail "$(weft status r)"
# What it wrote is at the donor, but nobody can say so.
timeout 60 weft detach r --force || :

echo "== another secret, an unknown key, and none"
weft key new fast --store elsewhere --out wrong.key >/dev/null
for key in "--key wrong.key" "--key fast.key" "--allow-insecure"; do
	# shellcheck disable=SC2086
	! attach "$uri" $key --transport rdma || fail "$key: $(cat out)"
	grep 'key' out || fail "$(cat out)"
done
grep "refused $RDMA_IP:.* over rdma: key 'fast' is not, or no longer, one of this donor's" \
	"$DONOR_LOG" || fail "the log: $(cat "$DONOR_LOG")"
stop_donor || fail "the donor's exit status: $?"

echo "== a donor that lets all keys go over RDMA"
start_donor --listen "$RDMA_IP:0" --keys keys --rdma-plaintext --memory r=4M
attach "weft://$RDMA_IP:$PORT/r" --key slow.key || fail "$(cat out)"
grep 'transport rdma (auto: .*), in plaintext' out || fail "$(cat out)"
weft detach r
stop_donor || fail "the donor's exit status: $?"
END
