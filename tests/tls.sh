# SPDX-License-Identifier: MIT
# What tests of TLS share: keys, certificates, and an address that is not the loopback's, from where
# nobody is let in for the user that he is.  Source it after lib.sh.
# shellcheck shell=bash

# over_the_network "$@": runs the test again in a network of its own, in which 192.0.2.1 is this
# machine.
over_the_network() {
	need_tool ip unshare
	[[ -z ${WEFT_TEST_NETWORK:-} ]] || return 0
	local unshare=(unshare --net)
	"${unshare[@]}" true 2>/dev/null || unshare=(unshare --net --user --map-root-user)
	"${unshare[@]}" true 2>/dev/null || skip "no network namespace can be made here"
	local status=0
	WEFT_TEST_NETWORK=1 "${unshare[@]}" bash -c \
		'ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec bash "$@"' \
		- "$0" "$@" || status=$?
	exit "$status"
}

# make_keys DIRECTORY NAME…: a donor's store with a random key for each, which DIRECTORY-NAME.psk
# has too.
make_keys() {
	local dir=$1 name line grants=
	shift
	mkdir -m 700 "$dir"
	: >"$dir/keys.psk"
	for name; do
		line=$name:$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
		echo "$line" >>"$dir/keys.psk"
		echo "$line" >"$dir-$name.psk"
		chmod 600 "$dir-$name.psk"
		grants+=${grants:+, }"\"$name\": {}"
	done
	echo "{\"version\": 1, \"keys\": {$grants}}" >"$dir/grants.json"
	chmod 600 "$dir/keys.psk" "$dir/grants.json"
}

# certify DIRECTORY FILE CN DAYS [EXTENSION]: FILE-key.pem and FILE-cert.pem of its authority.
certify() {
	local dir=$1 file=$2
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
		-keyout "$dir/$file-key.pem" -subj "/CN=$3" -out "$dir/request" 2>"$TMP/openssl" ||
		fail "openssl: $(cat "$TMP/openssl")"
	openssl x509 -req -in "$dir/request" -CA "$dir/ca-cert.pem" -CAkey "$dir/ca-key.pem" \
		-CAcreateserial -days "$4" -out "$dir/$file-cert.pem" \
		-extfile <(printf '%s\n' "basicConstraints=CA:FALSE" "${5:-}") 2>"$TMP/openssl" ||
		fail "openssl: $(cat "$TMP/openssl")"
	chmod 600 "$dir/$file-key.pem"
}

# make_certificates DIRECTORY CN: an authority, a server on 192.0.2.1 and 127.0.0.1, a client.
make_certificates() {
	local dir=$1
	need_tool openssl
	mkdir -m 700 "$dir"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
		-keyout "$dir/ca-key.pem" -subj "/CN=an authority" -out "$dir/ca-cert.pem" \
		-addext keyUsage=critical,keyCertSign,cRLSign 2>"$TMP/openssl" ||
		fail "openssl: $(cat "$TMP/openssl")"
	certify "$dir" server donor 30 \
		"subjectAltName=IP:192.0.2.1,IP:127.0.0.1,DNS:donor.example,DNS:localhost"
	certify "$dir" client "$2" 30
}

# with_server COMMAND…: until end_server another NBD server runs, as SERVER, on the socket $TMP/s.
with_server() {
	rm -f "$TMP/s"
	"$@" >"$TMP/server" 2>&1 &
	SERVER=$!
	wait_for -t 60 test -S "$TMP/s"
}

end_server() {
	kill "$SERVER"
	wait "$SERVER" || :
}

# first_read_takes ROUND-TRIPS OVER [PORT]: from the connect to the first bytes of a READ, with a
# key, over what matches OVER; PORT: over QUIC.  On a line where a round trip takes 200 ms; the best
# of several tries counts, since a busy machine makes each of them later.
first_read_takes() {
	local options=() best
	export ROUND_TRIP_MS=200 ROUND_TRIPS=$1 QUIC_PORT=${3-} TMP WEFT_BUILD
	[[ -z $QUIC_PORT ]] || options=(--quic "$QUIC_PORT")
	make_keys "$TMP/keys" alice
	on_a_line --keys "$TMP/keys" "${options[@]}" <<-'END'
		port=${uri##*:}
		port=${QUIC_PORT:-${port%%/*}}
		for ((i = 0; i < 6; i++)); do
			"$WEFT_BUILD/tests/client-alone" ${QUIC_PORT:+-q} -k "$TMP/keys-alice.psk" \
				"$WEFT_LINE_FAR_IP" "$port" r | tee -a "$TMP/took" >"$TMP/last"
			read -r best _ <"$TMP/last"
			((best >= (ROUND_TRIPS + 1) * ROUND_TRIP_MS)) || break
		done
	END
	weft line --delay $((ROUND_TRIP_MS / 2))ms bash "$TMP/inside" ||
		fail "exit status $?: $(cat "$TMP/donor.log")"
	! grep -v "$2" "$TMP/took" || fail "not over $2: $(cat "$TMP/took")"
	best=$(sort -n "$TMP/took" | head -n 1)
	echo "the best: $best, of which $1 round trips are $(($1 * ROUND_TRIP_MS)) ms"
	((${best%% *} >= $1 * ROUND_TRIP_MS)) ||
		fail "the line is shorter than it says: $(cat "$TMP/took")"
	((${best%% *} < ($1 + 1) * ROUND_TRIP_MS)) ||
		fail "more than $1 round trips: $(cat "$TMP/took")"
}
