# SPDX-License-Identifier: MIT
# From the connect to the first bytes of a READ over TLS 1.3: TCP's handshake, STARTTLS, TLS's
# handshake, everything up to the grant, the READ.  As attach-takes-three-round-trips.sh.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_line

ROUND_TRIP_MS=200 TRIES=6
make_keys "$TMP/keys" alice

cat >"$TMP/inside" <<'END'
set -euo pipefail
nsenter --net="$WEFT_LINE_FAR" weft-serve --listen "$WEFT_LINE_FAR_IP:0" --keys "$TMP/keys" \
	--memory r=8M >"$TMP/donor.log" 2>&1 &
donor=$!
for ((i = 0; i < 600; i++)); do
	! grep -qx ready "$TMP/donor.log" || break
	sleep 0.05
done
port=$(grep -o "weft://[^/ ']*" "$TMP/donor.log" | head -n 1)
port=${port##*:}
for ((i = 0; i < TRIES; i++)); do
	"$WEFT_BUILD/tests/client-alone" -k "$TMP/keys-alice.psk" "$WEFT_LINE_FAR_IP" "$port" r \
		>>"$TMP/took"
done
kill "$donor"
wait "$donor"
END
export TMP WEFT_BUILD TRIES
weft line --delay $((ROUND_TRIP_MS / 2))ms bash "$TMP/inside" ||
	fail "exit status $?: $(cat "$TMP/donor.log")"
[[ $(grep -c 'tcp+tls.*TLS1.3' "$TMP/took") = "$TRIES" ]] ||
	fail "not over TLS 1.3: $(cat "$TMP/took")"
best=$(sort -n "$TMP/took" | head -n 1)
echo "the best: $best, of which 5 round trips are $((5 * ROUND_TRIP_MS)) ms"
((${best%% *} >= 5 * ROUND_TRIP_MS)) || fail "the line is shorter than it says: $(cat "$TMP/took")"
((${best%% *} < 6 * ROUND_TRIP_MS)) || fail "more than 5 round trips: $(cat "$TMP/took")"
