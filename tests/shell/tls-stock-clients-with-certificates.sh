# SPDX-License-Identifier: MIT
# Stock NBD clients use a donor over TLS with certificates, and check the donor's own.  Who has
# none, one that is over or revoked, or one of another authority is refused, and the donor says why.
# presets: dev asan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool nbdinfo nbdcopy qemu-img qemu-storage-daemon nbdkit
over_the_network

# client_directory DIRECTORY FILE: what a client has of make_certificates, FILE-cert.pem as its own.
client_directory() {
	mkdir "$1"
	cp "$TMP/pki/ca-cert.pem" "$1"
	[[ -z $2 ]] || cp "$TMP/pki/$2-cert.pem" "$1/client-cert.pem"
	[[ -z $2 ]] || cp "$TMP/pki/$2-key.pem" "$1/client-key.pem"
}

make_certificates "$TMP/pki" carol
certify "$TMP/pki" expired dave 0
certify "$TMP/pki" odd "a name with spaces" 30
certify "$TMP/pki" revoked eve 30
certify "$TMP/pki" purpose frank 30 extendedKeyUsage=serverAuth
cat >"$TMP/ca.cnf" <<-END
	[ca]
	default_ca = a
	[a]
	database = $TMP/index
	default_md = sha256
	default_crl_days = 30
END
: >"$TMP/index"
for what in "-revoke $TMP/pki/revoked-cert.pem" "-gencrl -out $TMP/pki/ca-crl.pem"; do
	# shellcheck disable=SC2086
	openssl ca -config "$TMP/ca.cnf" -cert "$TMP/pki/ca-cert.pem" \
		-keyfile "$TMP/pki/ca-key.pem" $what 2>"$TMP/openssl" ||
		fail "openssl: $(cat "$TMP/openssl")"
done
for who in client expired odd revoked purpose; do
	client_directory "$TMP/$who" "$who"
done
client_directory "$TMP/none" ""

start_donor --memory m=64M --listen 192.0.2.1:0 --tls-certificates "$TMP/pki"
place=192.0.2.1:$PORT
random_file "$TMP/image" 64M
seen=$(wc -l <"$DONOR_LOG")

# ---- those who may ----

uri="nbds://$place/m?tls-certificates=$TMP/client"
nbdcopy --flush --connections=4 "$TMP/image" "$uri"
nbdcopy --connections=4 "$uri" "$TMP/back"
cmp "$TMP/image" "$TMP/back" || fail "nbdcopy"

image=driver=nbd,server.type=inet,server.host=192.0.2.1,server.port=$PORT,export=m,tls-creds=tls
for more in "" ,priority=NORMAL:-VERS-TLS1.3; do
	qemu-img compare -q --object \
		"tls-creds-x509,id=tls,endpoint=client,verify-peer=yes,dir=$TMP/client$more" \
		--image-opts driver=raw,file.filename="$TMP/image" "$image" || fail "qemu-img $more"
done

# A daemon of qemu's has the region as its block device, and others use that.
qemu-storage-daemon --object \
	"tls-creds-x509,id=tls,endpoint=client,verify-peer=yes,dir=$TMP/client" \
	--blockdev "$image,node-name=m" --nbd-server addr.type=unix,addr.path="$TMP/qsd" \
	--export nbd,id=e,node-name=m,name=m,writable=on 2>"$TMP/qsd.log" &
qsd=$!
wait_for nbdinfo --size "nbd+unix:///m?socket=$TMP/qsd" >/dev/null
random_file "$TMP/image" 64M
nbdcopy --flush "$TMP/image" "nbd+unix:///m?socket=$TMP/qsd"
nbdcopy "nbd+unix:///m?socket=$TMP/qsd" "$TMP/back"
cmp "$TMP/image" "$TMP/back" || fail "qemu-storage-daemon"
kill "$qsd"
wait "$qsd" || fail "qemu-storage-daemon: $(cat "$TMP/qsd.log")"

nbdkit -U - nbd hostname=192.0.2.1 port="$PORT" export=m tls=require \
	tls-certificates="$TMP/client" --run "nbdcopy \$uri $TMP/back" || fail "nbdkit"
cmp "$TMP/image" "$TMP/back" || fail "nbdkit"

# ---- those who may not ----

said() {
	grep -q "$1" <(tail -n "+$((seen + 1))" "$DONOR_LOG")
}
refused() { # WHO WHY
	! timeout 20 nbdinfo "nbds://$place/m?tls-certificates=$TMP/$1" >"$TMP/refused" 2>&1 ||
		fail "$1: it got in"
	wait_for said "refused 192.0.2.1:[0-9]* over tcp: .*$2"
	seen=$(wc -l <"$DONOR_LOG")
}
refused none "showed no certificate"
refused expired "certificate is not accepted: .*expired"
refused revoked "certificate is not accepted: .*revoked"
refused purpose "certificate is not accepted: .*purpose"
refused odd "cannot be an identity"

mv "$TMP/pki" "$TMP/pki-1"
make_certificates "$TMP/pki" carol
client_directory "$TMP/stranger" client
cp "$TMP/pki-1/ca-cert.pem" "$TMP/stranger"
refused stranger "certificate is not accepted: .*issuer is unknown"

# The client looks as well: this donor is not of its authority.
cp "$TMP/pki/ca-cert.pem" "$TMP/client"
! nbdinfo "$uri" 2>"$TMP/refused" || fail "a client took the donor for another"
grep -q certificate "$TMP/refused" || fail "$(cat "$TMP/refused")"
stop_donor || fail "exit status $?"

# ---- what a donor cannot start with ----

start_fails() { # WHY
	! weft serve --memory m=4M --listen 127.0.0.1:0 --tls-certificates "$TMP/pki" \
		>"$TMP/start" 2>&1 || fail "it started"
	grep -q "$1" "$TMP/start" || fail "$(cat "$TMP/start")"
}
for mode in 604 640 620; do
	chmod "$mode" "$TMP/pki/server-key.pem"
	start_fails "others can use $TMP/pki/server-key.pem: its mode is 0$mode"
done
for file in '' /ca-cert.pem; do
	mode=$(stat -c %a "$TMP/pki$file")
	chmod g+w "$TMP/pki$file"
	start_fails "others can write to $TMP/pki$file: "
	chmod "$mode" "$TMP/pki$file"
done
mv "$TMP/pki/server-key.pem" "$TMP/pki/away"
start_fails "cannot read .*server-key.pem"
echo nonsense >"$TMP/pki/server-cert.pem"
cp "$TMP/pki/away" "$TMP/pki/server-key.pem"
chmod 600 "$TMP/pki/server-key.pem"
start_fails "server-cert.pem: "
