# SPDX-License-Identifier: MIT
# Over QUIC no byte is wrong and no request fails on networks that lose datagrams, bring them twice
# or in another order, swallow large ones, or have a NAT that forgets who is who.  A borrower whose
# address changes keeps its connection, if its key may be used from there.
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_tool fio jq python3
need_quic

mkdir -m 700 "$TMP/keys"
weft key new alice --store "$TMP/keys/store" --out "$TMP/alice" >/dev/null
weft key new bob --store "$TMP/keys/store" --out "$TMP/bob" --from 127.0.0.1 >/dev/null
port=$(free_port)
start_donor --memory r=32M --listen 127.0.0.1:0 --quic "127.0.0.1:$port" \
	--keys "$TMP/keys/store" --debug=quic
log=$(ls "$TMP"/donor.*)

network() { # NAME=VALUE…: its port is $through then, and its process $NETWORK
	through=$(free_port)
	python3 "$WEFT_SRC/tests/support/udp-proxy.py" "$through" "$port" "$@" &
	NETWORK=$!
	wait_for -t 60 grep -q ":$(printf %04X "$through") " /proc/net/udp
}
attachment() {
	weft status q --json | jq -e ".attachments[0] | $1" >/dev/null
}
attach() { # KEY
	weft attach "weft://127.0.0.1:$through/r?transport=quic" --key "$TMP/$1" --name q \
		--socket "$TMP/s" --lanes 2
}
leave() {
	weft detach q
	kill "$NETWORK"
	wait "$NETWORK" || :
}
verify() { # OPTION…
	fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw \
		--bsrange=4k-128k --iodepth=16 --size=32M --verify=crc32c --verify_state_save=0 \
		--verify_fatal=1 "$@" >"$TMP/fio" 2>&1 || fail "fio: $(tail "$TMP/fio")"
}

[[ -v BAD ]] || BAD=("loss=0.01 twice=0.02 late=0.05" "loss=0.05 delay=5" "most=1400")
for bad in "${BAD[@]}"; do
	# shellcheck disable=SC2086
	network $bad
	attach alice
	verify --io_size=8M
	attachment '.errors == 0 and .reconnects == 0' || fail "$bad: $(weft status q)"
	echo "$bad: $(grep -E 'read:|write:' "$TMP/fio")"
	leave
done
grep -q 'datagrams of [0-9]* bytes do not arrive: 1360' "$log" "$TMP"/run/*.log ||
	fail "large datagrams were not given up"

# A NAT that forgets who is who, five times a second, once the handshakes are over: QUIC knows no
# other address before (RFC 9000, 9).
forget() { # TIMES
	for ((i = 0; i < $1; i++)); do
		sleep 0.2
		kill -USR1 "$NETWORK" || return 0
	done
}
network delay=5
attach alice
wait_for attachment '.state == "ready"'
forget 8 &
forgetting=$!
verify --time_based --runtime=3
wait "$forgetting"
(($(grep -c 'is at 127.0.0.1:[0-9]* now' "$log") > 2)) || fail "its port did not change"
kill -USR2 "$NETWORK"
verify --io_size=1M
attachment '.errors == 0 and .reconnects == 0' ||
	fail "a new address: $(weft status q; tail -n 40 "$log" "$TMP"/run/*.log)"
grep -q 'is at 127.0.0.2:[0-9]* now' "$log" || fail "nobody came from the new address"

# A connection follows 12 times; then there is another one, and no request fails.
forget 30 &
forgetting=$!
verify --time_based --runtime=7
wait "$forgetting"
attachment '.errors == 0 and .reconnects > 0' ||
	fail "many addresses: $(weft status q; tail -n 40 "$log" "$TMP"/run/*.log)"
grep -q "the client's address changed too often" "$log" ||
	fail "it was made anew for something else: $(tail -n 40 "$log")"
leave

# A key that may not be used from there is as if the network had lost everything.
network
attach bob
verify --io_size=1M
kill -USR2 "$NETWORK"
nbdinfo --size "nbd+unix:///?socket=$TMP/s" >/dev/null
nbdcopy --requests=1 "nbd+unix:///?socket=$TMP/s" null: &
copy=$!
wait_for grep -q "may not be at 127.0.0.2" "$log"
kill -0 "$copy" || fail "it was served at an address that its key is not for"
kill -USR2 "$NETWORK"
wait "$copy" || fail "it did not go on from its old address"
leave
