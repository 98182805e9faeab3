# SPDX-License-Identifier: MIT
# timeout: 600
# presets: dev
# processors: 2
# Certificates over soft-RoCE: they are shown over TLS, and a pass of that session is proved over
# RDMA, anew for each connection; who may not go over RDMA goes over TLS, and learns why; a
# certificate whose name is revoked ends the attachment.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool nbdcopy cmp openssl

in_testbed --timeout 500 <<'END'
. "$WEFT_SRC/tests/tls.sh"
cd "$TMP"
make_certificates pki carol
certify pki server donor 30 "subjectAltName=IP:$RDMA_IP,IP:127.0.0.1"
make_certificates others mallory
mkdir anonymous
cp pki/ca-cert.pem anonymous

echo "== conformance"
WEFT_PKI=$TMP timeout 300 "$WEFT_BUILD/tests/conformance/verbs-certificates" ||
	fail "conformance: $?"

attach() {
	local try
	for try in 1 2 3 4; do
		weft attach "$@" --socket "$TMP/s" >out 2>&1 || return
		grep -q "to say what it offers" out && ((try < 4)) || return 0
		weft detach r
	done
}
random_file image 4M
start_donor --listen "$RDMA_IP:0" --tls-certificates pki --memory r=4M --lease 10
socket="nbd+unix:///?socket=$TMP/s" uri=weft://$RDMA_IP:$PORT/r

echo "== a donor that does not lend to all over RDMA"
attach "$uri" --key pki || fail "$(cat out)"
grep 'transport tcp+k\?tls (auto: RDMA was tried: .*--rdma-plaintext of weft serve' out ||
	fail "$(cat out)"
weft detach r
stop_donor || fail "the donor's exit status: $?"

echo "== one that does"
start_donor --listen "$RDMA_IP:$PORT" --tls-certificates pki --rdma-plaintext --memory r=4M \
	--lease 10
attach "$uri" --key pki --lanes 2 || fail "$(cat out)"
grep 'transport rdma (auto: .*), in plaintext, 2 lanes' out || fail "$(cat out)"
timeout 60 nbdcopy image "$socket"
timeout 60 nbdcopy "$socket" back && cmp image back || fail "other bytes"
weft status | tee status
grep -q 'over rdma, in plaintext, .*carol.*, 2 connections' status || fail "the donor's status"

echo "== a donor that is killed gives a pass anew"
wait_for pgrep -x weftholder
stop_donor KILL || :
start_donor --listen "$RDMA_IP:$PORT" --tls-certificates pki --rdma-plaintext --memory r=4M \
	--lease 10
timeout 60 nbdcopy "$socket" back && cmp image back || fail "other bytes after a restart"
is_back() { weft status r | grep -q '; transport rdma'; }
wait_for -t 60 is_back || fail "$(weft status r)"
weft detach r

echo "== other certificates, and none of a client's"
for dir in others anonymous; do
	for transport in rdma auto; do
		! attach "$uri" --key "$dir" --transport $transport || fail "$dir: $(cat out)"
		grep -i certificate out || fail "$(cat out)"
	done
done
stop_donor || fail "the donor's exit status: $?"

echo "== a name that the donor has a key of, and then has not"
weft key new carol --store keys --rdma-plaintext >/dev/null
start_donor --listen "$RDMA_IP:$PORT" --tls-certificates pki --keys keys --memory r=4M --lease 10
attach "$uri" --key pki --transport rdma || fail "$(cat out)"
# The donors before gave back what was written to them.
timeout 60 nbdcopy "$socket" back && cmp back <(head -c 4M /dev/zero) || fail "bytes of before"
weft key revoke carol --store keys >/dev/null
is_out() { weft status r | grep -q 'reconnecting'; }
wait_for -t 30 is_out || fail "$(weft status r)"
grep "carol.*over rdma" "$DONOR_LOG" | tail -n 5
timeout 60 weft detach r --force || :
! attach "$uri" --key pki --transport rdma || fail "it comes back: $(cat out)"
grep "does not let us in" out || fail "$(cat out)"
stop_donor || fail "the donor's exit status: $?"
END
