# SPDX-License-Identifier: MIT
# Socket activation: a socket that was passed takes the place of the default one.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool systemd-socket-activate nbdinfo

port=$(free_port)
systemd-socket-activate -l "127.0.0.1:$port" -E WEFT_RUN_DIR="$WEFT_RUN_DIR" \
	"$WEFT_BIN/weft-serve" --memory scratch=1M >"$TMP/donor.log" 2>&1 &
activator=$!
wait_for grep -qi 'listening on' "$TMP/donor.log"
[[ $(timeout 20 nbdinfo --size "nbd://127.0.0.1:$port/scratch") = 1048576 ]] ||
	fail "$(cat "$TMP/donor.log")"
grep -q "^listening on 127.0.0.1:$port$" "$TMP/donor.log" || fail "$(cat "$TMP/donor.log")"
kill "$activator" # it became the donor
wait "$activator" || fail "exit status $?: $(cat "$TMP/donor.log")"
