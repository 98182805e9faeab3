# SPDX-License-Identifier: MIT
# Stock NBD clients use a donor over TLS, each with one of its keys; without one, with another, or
# in plain text they are refused, and the donor says why.
# presets: dev asan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool nbdinfo nbdcopy qemu-img qemu-io nbdkit
over_the_network

make_keys "$TMP/keys" alice bob
make_keys "$TMP/others" alice mallory
truncate -s 9G "$TMP/large"
start_donor --memory m=64M --file large="$TMP/large" --listen 192.0.2.1:0 --keys "$TMP/keys"
place=192.0.2.1:$PORT
random_file "$TMP/image" 64M

# said WHAT: the donor, since the last time.
said() {
	grep -q "$1" <(tail -n "+$((seen + 1))" "$DONOR_LOG")
}
has_said() {
	wait_for said "$1"
	seen=$(wc -l <"$DONOR_LOG")
}
seen=$(wc -l <"$DONOR_LOG")

# ---- libnbd ----

# As the donor says it.
uri=$(sed -n 's/^any NBD client with a key: //p' "$DONOR_LOG")
uri=${uri/IDENTITY/alice} uri=${uri/NAME/m} uri=${uri/FILE/$TMP/keys-alice.psk}
[[ $uri = "nbds://alice@$place/m?tls-psk-file=$TMP/keys-alice.psk" ]] || fail "'$uri'"
[[ $(nbdinfo --size "$uri") = $((64 << 20)) ]] || fail "nbdinfo: size"
nbdinfo --list "nbds://bob@$place/?tls-psk-file=$TMP/keys-bob.psk" | grep -q '^export="m"' ||
	fail "nbdinfo: list"
nbdcopy --flush --connections=4 "$TMP/image" "$uri"
nbdcopy --connections=4 "$uri" "$TMP/back"
cmp "$TMP/image" "$TMP/back" || fail "nbdcopy"
# CVE-2025-47712: the status of more than a length's 32 bits hold.
nbdinfo --map --totals "${uri/m\?/large?}" >"$TMP/map" || fail "nbdinfo: map"
grep -q "^ *$((9 << 30)) 100.0%" "$TMP/map" || fail "nbdinfo: map: $(cat "$TMP/map")"

# ---- qemu ----

# The credentials of qemu: a directory with keys.psk.
psk() { # NAME FILE
	mkdir -p "$TMP/qemu-$1"
	cp "$2" "$TMP/qemu-$1/keys.psk"
	printf 'tls-creds-psk,id=tls,endpoint=client,dir=%s,username=%s%s' "$TMP/qemu-$1" "$1" \
		"${3:-}"
}
image=driver=nbd,server.type=inet,server.host=192.0.2.1,server.port=$PORT,export=m,tls-creds=tls
for more in "" ,priority=NORMAL:-VERS-TLS1.3; do
	creds=$(psk bob "$TMP/keys-bob.psk" "$more")
	qemu-img compare -q --object "$creds" --image-opts driver=raw,file.filename="$TMP/image" \
		"$image" || fail "qemu-img $more"
done
qemu-io --object "$creds" --image-opts "$image" -c 'write -P 0x5a 1000003 4099' \
	-c 'read -P 0x5a 1000003 4099' -c 'write -z -u 1M 1M' -c 'read -P 0 1M 1M' -c flush \
	-c 'discard 2M 1M' >"$TMP/qemu-io" 2>&1 || fail "qemu-io: $(cat "$TMP/qemu-io")"
! grep -i 'fail\|error' "$TMP/qemu-io" || fail "qemu-io"

# ---- nbdkit ----

nbdkit -U - nbd hostname=192.0.2.1 port="$PORT" export=m tls=require tls-psk="$TMP/keys-alice.psk" \
	tls-username=alice --run "nbdcopy \$uri $TMP/back" || fail "nbdkit"
nbdcopy "$uri" "$TMP/image"
cmp "$TMP/image" "$TMP/back" || fail "nbdkit's bytes"

# ---- refused ----

refused() { # WHY COMMAND…
	local why=$1 status=0
	shift
	timeout 20 "$@" >"$TMP/refused" 2>&1 || status=$?
	((status == 1)) || fail "$* ended with $status: $(cat "$TMP/refused")"
	has_said "refused 192.0.2.1:[0-9]* over tcp: .*$why"
}
refused "without TLS" nbdinfo "nbd://$place/m"
# The same from there is not said again.
! nbdinfo --list "nbd://$place" 2>/dev/null || fail "nbdinfo lists without TLS"
! qemu-img info "nbd://$place/m" 2>/dev/null || fail "qemu-img without TLS"
refused "key for the identity alice is not the one here" \
	nbdinfo "nbds://alice@$place/m?tls-psk-file=$TMP/others-alice.psk"
refused "no key for the identity mallory" \
	nbdinfo "nbds://mallory@$place/m?tls-psk-file=$TMP/others-mallory.psk"
refused "key for the identity bob is not the one here" qemu-img info --object \
	"$(psk bob <(sed 's/.*:/bob:/' "$TMP/keys-alice.psk") ,priority=NORMAL:-VERS-TLS1.3)" \
	--image-opts "$image"
refused "TLS handshake" nbdinfo "nbds://$place/m?tls-certificates=$TMP"

# Keys that are taken away let nobody in any more, and those that come do, while the donor runs.
sed -i '/^bob/d' "$TMP/keys/keys.psk"
refused "no key for the identity bob" \
	nbdinfo "nbds://bob@$place/m?tls-psk-file=$TMP/keys-bob.psk"
nbdinfo --size "$uri" >/dev/null || fail "a key that stays"
stop_donor || fail "exit status $?"
