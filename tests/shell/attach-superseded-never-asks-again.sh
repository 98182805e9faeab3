# SPDX-License-Identifier: MIT
# A bridge that was superseded by another of the same identity is told so once: it does not insist,
# no reset takes it into its successor's generation, and the successor is not disturbed.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

start_donor --memory r=8M --lease 2
socket="nbd+unix:///?socket=$TMP/s"
weft attach "$URI" --socket "$TMP/s" --dead-timeout 120 >/dev/null || fail "attach"
writes 0x41 0 8192 "$socket" || fail "$(cat "$TMP/io")"
suspend_bridge
# As if the machine had been cloned: the same state, the next incarnation.
other true
cp "$WEFT_RUN_DIR/attach-r.json" "$TMP/other"
other weft attach "$URI" --socket "$TMP/s2" >/dev/null || fail "not taken over"
socket2="nbd+unix:///?socket=$TMP/s2"
writes 0x42 0 8192 "$socket2" || fail "$(cat "$TMP/io")"
mine() { weft status --json | jq -c '.donors[0].attachments[] | [.generation, .sessions]'; }
before=$(mine)
wake_bridge
! io "$socket" -r -c 'read 0 4096' || fail "it answers"
[[ $(attachment state) != ready ]] || fail "it is ready: $(weft status r)"
weft status r | grep -qE 'superseded|taken over by another'  ||
	fail "it does not say why: $(weft status r)"
# The first that it asks after it was woken up is 1.1.
insists() { weft status --explain r | grep -q 'connect  *generation 1\.[2-9]'; }
! insists || fail "it insisted: $(weft status --explain r)"
sleep 1 # in which it must do nothing
! insists || fail "it asks again: $(weft status --explain r)"
weft reset --discard r >"$TMP/out" 2>&1 || grep -qE 'superseded|another process' "$TMP/out" ||
	fail "reset: $(cat "$TMP/out")"
! io "$socket" -c 'write -P 0x43 0 4096' -c flush || fail "it writes in its successor's generation"
[[ $(mine) = "$before" ]] || fail "it took part in its successor's grant: $before, then $(mine)"
reads 0x42 0 8192 "$socket2" || fail "its successor reads something else: $(cat "$TMP/io")"
writes 0x44 0 8192 "$socket2" || fail "its successor: $(cat "$TMP/io")"
unused() { [[ $(other weft status r) = *", 0 clients"* ]]; }
wait_for unused
other weft detach r || fail "detach"
weft detach --force r >/dev/null 2>&1 || :
