# SPDX-License-Identifier: MIT
# Status says that writing back fails while it does, and no longer once a reset has ended it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy

start_donor --memory r=32M --lease 60
port=${PORT:?}
weft attach "$URI" --socket "$TMP/s" --cache 16M --push-interval 0.2 --timeout 1 \
	--dead-timeout 1 >/dev/null || fail "attach"
random_file "$TMP/data" $((4 << 20))
kill -STOP "$DONOR_PID"
nbdcopy "$TMP/data" "nbd+unix:///?socket=$TMP/s" 2>"$TMP/err" || : # it wants a flush
failing() \
	{ [[ $(weft status r) = *"not at the donor yet; writing back has failed, and is tried again"* ]]; }
wait_for -t 30 failing
kill -CONT "$DONOR_PID"
stop_donor || fail "the donor's exit status: $?"
start_donor --listen "127.0.0.1:$port" --memory r=32M
is_stale() { [[ $(weft status r --json | jq -r '.attachments[0].state') = stale ]]; }
wait_for -t 30 is_stale
weft reset --discard r >/dev/null || fail "reset"
[[ $(weft status r) = *", 0 B of it not at the donor yet"$'\n'* ]] ||
	fail "status tells of what is over: $(weft status r)"
[[ $(weft status r --json | jq '.attachments[0].cache | .push_failing == false and .push_errors > 0') = true ]] || fail "$(weft status r --json)"
weft detach r
