# SPDX-License-Identifier: MIT
# weft status: a table, JSON, metrics, the flight recorder; of attachments and donors; and of one
# that is not there.
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq qemu-io

[[ $(weft status) = 'no attachments and no donors' ]] || fail "$(weft status)"
start_donor --memory r=1M
weft attach "$URI" --socket "$TMP/s" >/dev/null
qemu-io -f raw "nbd+unix:///?socket=$TMP/s" -c 'write -P 1 4096 8192' -c 'read 4096 8192' \
	-c flush >/dev/null
table=$(weft status)
for text in 'r  '"$URI"'  ready' 'transport tcp (auto: the donor offers only tcp)' "socket $TMP/s" \
	'donor, pid '"$DONOR_PID" \
	"  region r: used by attachment 'r' (writer) from 127.0.0.1, "; do
	[[ $table = *"$text"* ]] || fail "no '$text' in: $table"
done
[[ ! -e /sys/devices/system/node/node1 && $table = *"lanes are not placed"* ]] &&
	fail "one node, and yet: $table"
weft status --json |
	jq -e --arg uri "$URI" '.attachments[0] | .uri == $uri and .state == "ready" and
	.requests.write == 1 and .requests.read >= 1 and .requests.flush >= 1 and .written_bytes == 8192 and
	.latency_s.write.p50 > 0 and .latency_s.write.p50 <= .latency_s.write.max * 1.02 and
	(.lanes | length) >= 1 and .transport == "tcp"' >/dev/null || fail "$(weft status --json)"
! weft status --json | grep -E '[0-9]\.[0-9]{10}' || fail "digits that mean nothing"
weft status --json | jq -e '.donors[0].regions[0].name == "r"' >/dev/null || fail "no donor"
weft status --prometheus >"$TMP/metrics"
grep -q '^weft_requests_total{name="r",kind="write"} 1$' "$TMP/metrics" ||
	fail "$(cat "$TMP/metrics")"
! grep -Ev '^(#|[a-z_]+\{[^}]*\} ([0-9.]+|NaN)$)' "$TMP/metrics" || fail "not Prometheus' format"
weft status r --explain | grep -q 'write *4096 +8192' || fail "$(weft status r --explain)"
! weft status nope 2>"$TMP/nope" || fail "nope"
grep -q "no attachment 'nope'" "$TMP/nope" || fail "$(cat "$TMP/nope")"
! weft status --json --explain 2>/dev/null || fail "two forms"
weft detach r

# A donor that is stopped is not there for the first glance, but not forgotten.
kill -STOP "$DONOR_PID"
cleanup_add "kill -CONT $DONOR_PID"
weft status >"$TMP/stopped" 2>&1 || fail "exit status $?"
grep -q 'a donor is not answering: .*serve-' "$TMP/stopped" || fail "$(cat "$TMP/stopped")"
! grep -q 'no donors' "$TMP/stopped" || fail "$(cat "$TMP/stopped")"
