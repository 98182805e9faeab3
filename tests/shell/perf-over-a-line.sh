# SPDX-License-Identifier: MIT
# weft-perf on a line: servers over TCP are at its far end, whoever listens for them; the others are
# not.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool nbdkit jq

weft line --delay 2ms "$WEFT_BIN/weft-perf" --rounds 1 --slice-ms 500 --json "$TMP/json" \
	'^(nbd-servers/tcp/read/4K-1x1-same/(floor|nbdkit|weft)|bridge/read/4K-1x1-same/.*)$' \
	>"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
jq -e '.rows | [.["nbd-servers/tcp/read/4K-1x1-same"][], .["bridge/read/4K-1x1-same"]["floor-tcp",
	"donor-tcp", "bridge"]] | length == 6 and all(.p50_us.median > 3900)' "$TMP/json" >/dev/null ||
	fail "not over the line: $(cat "$TMP/out")"
jq -e '.rows["bridge/read/4K-1x1-same"]["floor-unix", "bridge-hits"] | .p50_us.median < 3900' \
	"$TMP/json" >/dev/null || fail "over a line: $(cat "$TMP/out")"
