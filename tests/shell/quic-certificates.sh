# SPDX-License-Identifier: MIT
# Over QUIC as over TLS: certificates of one authority let each other in, others do not; a donor
# that knows nobody has no QUIC, and says so.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_tool openssl nbdinfo
need_quic

make_certificates "$TMP/pki" carol
make_certificates "$TMP/others" mallory
mkdir "$TMP/anonymous" "$TMP/mixed"
cp "$TMP/pki/ca-cert.pem" "$TMP/anonymous"
cp "$TMP/pki/ca-cert.pem" "$TMP/others"/client-{cert,key}.pem "$TMP/mixed"

start_donor --memory m=4M --quic 0 --tls-certificates "$TMP/pki"
quic=$(sed -n 's/^listening on 127.0.0.1:\([0-9]*\) over QUIC$/\1/p' "$DONOR_LOG")
[[ $quic ]] || fail "$(cat "$DONOR_LOG")"
attach() { # KEY OPTION…
	weft attach "weft://127.0.0.1:$quic/m?transport=quic" --key "$TMP/$1" --name m \
		--socket "$TMP/s" "${@:2}" >"$TMP/out" 2>&1
}
refused() { # KEY PATTERN
	! attach "$1" || fail "it goes on with $1"
	grep -q "$2" "$TMP/out" || fail "it does not say why: $(cat "$TMP/out")"
}
attach pki || fail "$(cat "$TMP/out")"
grep -q 'transport quic (as told)' "$TMP/out" || fail "$(cat "$TMP/out")"
weft status m | grep -q "certificates of $TMP/pki" || fail "$(weft status m)"
weft status | grep -q "attachment 'm' (writer) from 127.0.0.1, encrypted, certificate 'carol'" ||
	weft status | grep -q "encrypted, .*'carol'" || fail "$(weft status)"
nbdinfo --size "nbd+unix:///?socket=$TMP/s" >/dev/null
weft detach m >/dev/null
refused others "certificate is not accepted"
refused anonymous "[Cc]ertificate"
refused mixed "[Cc]ertificate"
stop_donor

! weft serve --memory m=4M --listen 127.0.0.1:0 --quic 0 --allow-insecure >"$TMP/out" 2>&1 ||
	fail "a donor that knows nobody has QUIC"
grep -q 'QUIC is always encrypted, and this donor has neither keys nor certificates' "$TMP/out" ||
	fail "$(cat "$TMP/out")"
