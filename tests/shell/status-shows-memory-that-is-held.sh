# SPDX-License-Identifier: MIT
# Memory that a holder keeps after its donor's crash: weft status shows it, how long yet, and the
# lines that take it back and that free it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

port=$(free_port)
start_donor --listen "127.0.0.1:$port" --memory 'a region=3M' --memory b=1M --keep 100
[[ $(weft status --json | jq -c .held) = '[]' ]] || fail "held although the donor lives"
epoch=$(weft status --json | jq -r '.donors[0].regions[0].epoch')
stop_donor KILL || :
held() {
	weft status >"$TMP/status"
	grep "^a donor on 127.0.0.1:$port crashed: region b, 1 MiB, is kept for [0-9]* s more by weftholder, pid [0-9]*$" "$TMP/status" >/dev/null
}
wait_for held
left=$(sed -n 's/.* region b, .* kept for \([0-9]*\) s more .*/\1/p' "$TMP/status")
((left > 60 && left <= 100)) || fail "$left s are left"
! grep 'no attachments and no donors' "$TMP/status" || fail "$(cat "$TMP/status")"
weft status --json |
	jq -e --arg epoch "$epoch" \
		--arg listen "127.0.0.1:$port" \
		'.held | sort_by(.region) | map(.region) == ["a region", "b"] and
	.[0].size_bytes == 3145728 and .[0].epoch == $epoch and .[0].listen == $listen' >/dev/null || fail "$(weft status --json)"

# Looking takes nothing away, and the line takes it back.
line=$(sed -n 's/^  a donor there takes it back, .*: weft serve //p' "$TMP/status" | grep 'a region')
[[ $line = "--listen 127.0.0.1:$port --memory 'a region=3145728'" ]] || fail "$line"
eval "start_donor $line"
grep -q "^recovered region 'a region' (3 MiB), epoch $epoch" "$DONOR_LOG" ||
	fail "$(cat "$DONOR_LOG")"
held || fail "b is gone: $(cat "$TMP/status")"
# So does the one that frees it.
eval "$(sed -n 's/^  to free it, .*: //p' "$TMP/status" | head -n 1)"
not_held() {
	[[ $(weft status --json | jq -c .held) = '[]' ]]
}
wait_for not_held
stop_donor
[[ $(weft status) = 'no attachments and no donors' ]] || fail "$(weft status)"
