# SPDX-License-Identifier: MIT
# presets: dev asan
# SIGTERM and ^C give memory back; the donor says whose contents that ends.  SIGUSR2 and nobody
# attached: no warning.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

for signal in TERM INT USR2; do
	start_donor --memory m=64M --memory unused=1M
	weft attach "$URI" --name "$signal" --socket "$TMP/$signal.nbd" >/dev/null
	stop_donor "$signal" || fail "exit status $?"
	! grep -q "giving back region 'unused'" "$DONOR_LOG" || fail "warned of what nobody uses"
	if [[ $signal = USR2 ]]; then
		! grep -q 'giving back' "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
	else
		grep -q "giving back region 'm' (64 MiB), which '$signal' from 127.0.0.1:[0-9]* has attached; SIGUSR2 would have kept it" \
			"$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
	fi
done
