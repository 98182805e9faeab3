# SPDX-License-Identifier: MIT
# A borrower loses its address under fio, and has another one: over QUIC its connections follow, and
# no byte is wrong.  A connection that ended all the same would be made anew: that is no error, and
# the test says how many.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_line
need_tool fio jq ip
need_quic

make_keys "$TMP/keys" alice
on_a_line --keys "$TMP/keys" --quic 10810 --debug=quic <<'END'
address=$WEFT_LINE_NEAR_IP
move_to() { # ADDRESS
	nsenter --net="$WEFT_LINE_FAR" ip route add "$1/32" dev line0
	ip address add "$1/32" dev line0
	ip address del "$address/${2:-32}" dev line0
	ip route replace "$WEFT_LINE_FAR_IP/32" dev line0
	address=$1
}
weft attach "$uri?transport=quic" --key "$TMP/keys-alice.psk" --lanes 2 --name r --socket "$TMP/s"
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw --bsrange=4k-64k \
	--iodepth=8 --size=16M --time_based --runtime=4 --verify=crc32c --verify_state_save=0 \
	--verify_fatal=1 >"$TMP/fio" 2>&1 &
fio=$!
sleep 1
move_to 198.19.0.9 30
sleep 1
move_to 198.19.0.10
wait "$fio"
weft status r --json >"$TMP/status"
weft detach r
END
export TMP
weft line --delay 2ms bash "$TMP/inside" ||
	fail "exit status $?: $(tail -n 20 "$TMP/fio" "$TMP/donor.log")"
jq -e '.attachments[0] | .errors == 0' "$TMP/status" >/dev/null || fail "$(cat "$TMP/status")"
jq -r '.attachments[0] | "\(.reconnects) reconnects"' "$TMP/status"
for address in 198.19.0.9 198.19.0.10; do
	grep -q "is at $address:[0-9]* now" "$TMP/donor.log" || fail "it was never at $address"
done
