# SPDX-License-Identifier: MIT
# Our client at NBD servers of others, over TLS with a key: nbdkit and qemu, TLS 1.3 and 1.2.  With
# another key, or at a server without TLS, nothing is read.
# presets: dev asan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool nbdkit qemu-nbd

make_keys "$TMP/keys" alice
make_keys "$TMP/others" alice
truncate -s 32M "$TMP/image"

client() { # KEY-FILE
	"$WEFT_BUILD/tests/client-alone" -f -k "$1" "$TMP/s" 0 x >"$TMP/out" 2>&1
}
refused() { # KEY-FILE TEXT
	! client "$1" || fail "it goes on: $(cat "$TMP/out")"
	grep -q "$2" "$TMP/out" || fail "it does not say '$2': $(cat "$TMP/out")"
}
passes() { # VERSION
	client "$TMP/keys-alice.psk" || fail "$1: $(cat "$TMP/out" "$TMP/server")"
	grep -q "unix+tls, .*($1 " "$TMP/out" || fail "it is not $1: $(cat "$TMP/out")"
	refused "$TMP/others-alice.psk" 'alice\|TLS'
}

with_server nbdkit --foreground --exit-with-parent --unix "$TMP/s" --tls=require \
	--tls-psk="$TMP/keys/keys.psk" file "$TMP/image"
passes TLS1.3
end_server
with_server nbdkit --foreground --exit-with-parent --unix "$TMP/s" file "$TMP/image"
refused "$TMP/keys-alice.psk" 'does not begin TLS'
end_server

for more in "" ,priority=NORMAL:-VERS-TLS1.3; do
	with_server qemu-nbd --persistent --socket "$TMP/s" --export-name x --format raw \
		--object "tls-creds-psk,id=tls,endpoint=server,dir=$TMP/keys$more" \
		--tls-creds tls "$TMP/image"
	if [[ $more ]]; then passes TLS1.2; else passes TLS1.3; fi
	end_server
done
with_server qemu-nbd --persistent --socket "$TMP/s" --export-name x --format raw "$TMP/image"
refused "$TMP/keys-alice.psk" 'does not begin TLS'
end_server
