# SPDX-License-Identifier: MIT
# A donor at the far end of a line is taken over QUIC, since it is far away; without QUIC the
# attachment goes on over TCP, and back when QUIC is there again.  Each change is told.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_line
need_tool jq nbdcopy
need_quic

make_keys "$TMP/keys" alice
cat >"$TMP/inside" <<'END'
set -euo pipefail
export WEFT_KEY=$TMP/keys-alice.psk
fail() {
	echo "FAIL: $*" >&2
	exit 1
}
wait_for() { # COMMAND…
	local i
	for ((i = 0; i < 1200; i++)); do
		! "$@" || return 0
		sleep 0.05
	done
	fail "waited for: $*"
}
serve() { # OPTION…: the same memory each time, which the holder keeps
	rm -f "$TMP/donor.log" # of an earlier one
	nsenter --net="$WEFT_LINE_FAR" weft-serve --listen "$WEFT_LINE_FAR_IP:10809" \
		--keys "$TMP/keys" --memory r=16M "$@" >"$TMP/donor.log" 2>&1 &
	donor=$!
	wait_for grep -qx ready "$TMP/donor.log"
}
go() { # SIGNAL
	kill -s "$1" "$donor"
	wait "$donor" || :
}
is() { # PATTERN
	weft status r | grep -q "$1"
}
serve --quic 10810
weft attach "weft://$WEFT_LINE_FAR_IP/r" --socket "$TMP/s" --lanes 2
is 'transport quic (auto: the donor offers tcp,quic:10810)' || fail "$(weft status r)"
nbdcopy --flush "$TMP/data" "nbd+unix:///?socket=$TMP/s"
go KILL
serve
wait_for is 'transport tcp+k\?tls ('
weft status r | grep transport
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/back"
cmp "$TMP/data" "$TMP/back" || fail "other bytes over TCP"
go KILL
serve --quic 10810
wait_for is 'transport quic ('
weft status r | grep transport
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/back"
cmp "$TMP/data" "$TMP/back" || fail "other bytes over QUIC"
jq -e '.attachments[0] | .errors == 0 and .donors[0].transport_changes == 2' \
	<(weft status r --json) >/dev/null || fail "$(weft status r --json)"
weft detach r
go TERM
END
random_file "$TMP/data" $((16 << 20))
export TMP
weft line --delay 4ms bash "$TMP/inside" || fail "exit status $?: $(cat "$TMP/donor.log")"
