# SPDX-License-Identifier: MIT
# From the connect to the first bytes of a READ over TLS 1.3: TCP's handshake, STARTTLS, TLS's
# handshake, everything up to the grant, the READ.  As attach-takes-three-round-trips.sh.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_line

ROUND_TRIP_MS=200 TRIES=6
make_keys "$TMP/keys" alice

on_a_line --keys "$TMP/keys" <<'END'
port=${uri##*:}
for ((i = 0; i < TRIES; i++)); do
	"$WEFT_BUILD/tests/client-alone" -k "$TMP/keys-alice.psk" "$WEFT_LINE_FAR_IP" \
		"${port%%/*}" r | tee -a "$TMP/took" >"$TMP/last"
	read -r best _ <"$TMP/last"
	((best >= 6 * ROUND_TRIP_MS)) || break
done
END
export TMP WEFT_BUILD TRIES ROUND_TRIP_MS
weft line --delay $((ROUND_TRIP_MS / 2))ms bash "$TMP/inside" ||
	fail "exit status $?: $(cat "$TMP/donor.log")"
! grep -v 'tcp+k\?tls.*TLS1.3' "$TMP/took" || fail "not over TLS 1.3: $(cat "$TMP/took")"
best=$(sort -n "$TMP/took" | head -n 1)
echo "the best: $best, of which 5 round trips are $((5 * ROUND_TRIP_MS)) ms"
((${best%% *} >= 5 * ROUND_TRIP_MS)) || fail "the line is shorter than it says: $(cat "$TMP/took")"
((${best%% *} < 6 * ROUND_TRIP_MS)) || fail "more than 5 round trips: $(cat "$TMP/took")"
