# SPDX-License-Identifier: MIT
# timeout: 900
# presets: dev
# processors: 2
# Records that the kernel makes, in the testbed, whose kernel can: with a key and with certificates,
# by each cipher; new sessions under fio's checks; a donor that is killed and comes back; stock
# clients; the conformance suite.  Without the module all goes on with GnuTLS, and status says why.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq nbdcopy openssl

in_testbed --timeout 800 <<'END'
. tests/tls.sh
ip address add 192.0.2.1/32 dev lo
made() { # how many directions the kernel has had, with what it says of errors
	awk '/^Tls(Tx|Rx)Sw|DecryptError/ { n[$1] = $2 } END {
		print n["TlsTxSw"] + n["TlsRxSw"], n["TlsDecryptError"] }' /proc/net/tls_stat
}
attached() {
	weft status r --json | jq -e ".attachments[0] | $1" >/dev/null
}
verify() { # SECONDS
	fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw \
		--bsrange=4k-64k --iodepth=16 --size=16M --verify=crc32c --verify_state_save=0 \
		--verify_fatal=1 --time_based --runtime="$1" >"$TMP/fio" 2>&1
}
make_keys "$TMP/keys" alice
make_certificates "$TMP/pki" carol
random_file "$TMP/image" 8M
export WEFT_KEY=$TMP/keys-alice.psk

# Without the module, which weft does not load.
start_donor --memory r=16M --listen 192.0.2.1:0 --keys "$TMP/keys"
weft attach "$URI" --socket "$TMP/s" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep -q 'transport tcp+tls ' "$TMP/out" || fail "$(cat "$TMP/out")"
! grep -i kernel "$TMP/out" || fail "attach complains"
weft status r >"$TMP/out"
grep -q 'TLS1.3 AES-128-GCM; no kTLS: the module tls is not loaded' "$TMP/out" ||
	fail "$(cat "$TMP/out")"
weft detach r
stop_donor
[[ ! -d /sys/module/tls ]] || fail "somebody loaded the module"
modprobe tls

for cipher in AES-128-GCM AES-256-GCM CHACHA20-POLY1305; do
	printf 'AES-128-GCM\nAES-256-GCM\nCHACHA20-POLY1305\n' | grep -vx "$cipher" |
		sed '1 i [overrides]
			s/^/tls-disabled-cipher = /' >"$TMP/$cipher"
	# A key goes with ciphers of SHA-256.
	[[ $cipher != AES-256-GCM ]] || continue
	GNUTLS_SYSTEM_PRIORITY_FILE=$TMP/$cipher "$WEFT_BUILD/tests/unit/tls-kernel" \
		>"$TMP/out" 2>&1 || fail "$cipher: $(cat "$TMP/out")"
	! grep SKIPPED "$TMP/out" || fail "$cipher"
done

# New sessions every 1,000 records; the donor is killed and comes back.
export WEFT_TLS_RECORDS=1000
port=$(free_port)
start_donor --memory r=16M --listen "192.0.2.1:$port" --keys "$TMP/keys"
before=$(made)
weft attach "$URI" --socket "$TMP/s" --lanes 2 >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep -q 'transport tcp+ktls ' "$TMP/out" || fail "$(cat "$TMP/out")"
weft status r | grep -q '(TLS1.3 AES-128-GCM)' || fail "$(weft status r)"
weft status r --prometheus | grep 'weft_transport{.*tcp+ktls' || fail "$(weft status --prometheus)"
grep -q "granted .* over tcp+ktls" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
attached '.transport == "tcp+ktls"' || fail "$(weft status r --json)"
set -- $before $(made)
(($3 >= $1 + 8)) || fail "the kernel has made no records: $*"
verify 12 || fail "fio: $(tail "$TMP/fio")"
attached '[.lanes[].renewals] | add >= 1' || fail "no new session: $(weft status r --json)"
attached '.errors == 0 and .reconnects == 0 and .state == "ready"' || fail "$(weft status r --json)"
verify 15 &
fio=$!
sleep 3
kill -KILL "$DONOR_PID"
wait "$DONOR_PID" || :
start_donor --memory r=16M --listen "192.0.2.1:$port" --keys "$TMP/keys"
wait $fio || fail "fio: $(tail "$TMP/fio")"
attached '.errors == 0 and .reconnects >= 1 and .transport == "tcp+ktls"' ||
	fail "$(weft status r --json)"
weft detach r

# Stock clients get GnuTLS's records, whatever their version.
uri="nbds://alice@192.0.2.1:$port/r?tls-psk-file=$TMP/keys-alice.psk"
printf '[overrides]\ndisabled-version = tls1.3\n' >"$TMP/tls12"
for config in /dev/null "$TMP/tls12"; do
	GNUTLS_SYSTEM_PRIORITY_FILE=$config nbdcopy --flush "$TMP/image" "$uri"
	GNUTLS_SYSTEM_PRIORITY_FILE=$config nbdcopy "$uri" "$TMP/back"
	cmp -n $((8 << 20)) "$TMP/image" "$TMP/back" || fail "nbdcopy, $config"
done
grep -q "granted .* over tcp+tls" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
stop_donor

# Certificates, and AES-256.
export GNUTLS_SYSTEM_PRIORITY_FILE=$TMP/AES-256-GCM
start_donor --memory r=16M --listen 192.0.2.1:0 --tls-certificates "$TMP/pki"
weft attach "$URI" --socket "$TMP/s" --key "$TMP/pki" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
grep -q 'transport tcp+ktls ' "$TMP/out" || fail "$(cat "$TMP/out")"
weft status r | grep -q '(TLS1.3 AES-256-GCM)' || fail "$(weft status r)"
verify 5 || fail "fio: $(tail "$TMP/fio")"
attached '.errors == 0 and .reconnects == 0' || fail "$(weft status r --json)"
weft detach r
stop_donor
unset WEFT_TLS_RECORDS GNUTLS_SYSTEM_PRIORITY_FILE

before=$(made)
"$WEFT_BUILD/tests/conformance/nbd-donor-tls" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
set -- $before $(made)
(($3 >= $1 + 40)) || fail "the suite was not over the kernel's records: $*"
(($4 == $2)) || fail "records that could not be opened: $*"
END
