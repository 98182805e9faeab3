# SPDX-License-Identifier: MIT
# Our client over TLS with certificates, at a donor, at nbdkit and at qemu.  A server whose
# certificate is another authority's, or for another host, is not spoken to; a client without a
# certificate, or with another authority's, is not let in.
# presets: dev asan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool nbdkit qemu-nbd jq

make_certificates "$TMP/pki" carol
make_certificates "$TMP/others" mallory
mkdir "$TMP/anonymous" "$TMP/mixed"
cp "$TMP/pki/ca-cert.pem" "$TMP/anonymous"
cp "$TMP/pki/ca-cert.pem" "$TMP/others"/client-{cert,key}.pem "$TMP/mixed"
truncate -s 32M "$TMP/image"

client() { # CERTIFICATES OPTION…
	"$WEFT_BUILD/tests/client-alone" -c "$@" >"$TMP/out" 2>&1
}
refused() { # CERTIFICATES OPTION…
	! client "$@" || fail "$* goes on: $(cat "$TMP/out")"
	# Others' servers may just hang up.
	grep -q 'ertificate\|TLS\|hung up' "$TMP/out" ||
		fail "$*: it does not say why: $(cat "$TMP/out")"
}
passes() { # OPTION…
	client "$TMP/pki" "$@" || fail "$*: $(cat "$TMP/out")"
	grep -q '+tls, .*(TLS1.3 ' "$TMP/out" || fail "it is not TLS: $(cat "$TMP/out")"
	refused "$TMP/others" "$@"
	refused "$TMP/anonymous" "$@"
	refused "$TMP/mixed" "$@"
}

start_donor --listen 0.0.0.0:0 --memory m=32M --tls-certificates "$TMP/pki"
passes 127.0.0.1 "$PORT" m
refused "$TMP/pki" 127.0.0.2 "$PORT" m

# What the commands have: a directory where a key file would be.
uri=weft://127.0.0.1:$PORT/m
weft list "$uri" --key "$TMP/pki" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
weft attach "$uri" --socket "$TMP/socket" --key "$TMP/pki" >"$TMP/out" 2>&1 ||
	fail "$(cat "$TMP/out")"
grep -q "certificates of $TMP/pki" "$TMP/out" || fail "$(cat "$TMP/out")"
grep -q 'transport tcp+k\?tls' "$TMP/out" || fail "$(cat "$TMP/out")"
weft status m >"$TMP/out"
grep -q "certificates of $TMP/pki" "$TMP/out" || fail "$(cat "$TMP/out")"
# A bridge that is killed is taken over, and one that is killed again let go of, with the same.
bridge=$(weft status m --json | jq '.attachments[0].pid')
kill -9 "$bridge"
wait_for gone "$bridge"
weft attach "$uri" --socket "$TMP/socket" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep -q "certificates of $TMP/pki" "$TMP/out" || fail "taken over without: $(cat "$TMP/out")"
bridge=$(weft status m --json | jq '.attachments[0].pid')
kill -9 "$bridge"
wait_for gone "$bridge"
weft detach m >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
! weft attach "weft://dave@127.0.0.1:$PORT/m" --socket "$TMP/socket" --key "$TMP/pki" \
	>"$TMP/out" 2>&1 || fail "with an identity"
grep -q 'leave the identity out' "$TMP/out" || fail "$(cat "$TMP/out")"
weft attach "$uri" --socket "$TMP/socket" --key "$TMP/others" >"$TMP/out" 2>&1 &&
	fail "it attaches with another's certificates"

with_server nbdkit --foreground --exit-with-parent --unix "$TMP/s" --tls=require \
	--tls-certificates="$TMP/pki" --tls-verify-peer file "$TMP/image"
passes -f "$TMP/s" 0 x
end_server
with_server qemu-nbd --persistent --socket "$TMP/s" --export-name x --format raw \
	--object "tls-creds-x509,id=tls,endpoint=server,dir=$TMP/pki" --tls-creds tls "$TMP/image"
passes -f "$TMP/s" 0 x
end_server
