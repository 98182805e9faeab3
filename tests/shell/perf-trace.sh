# SPDX-License-Identifier: MIT
# perf/trace/run draws where the time of an attachment's requests goes: at the donor and on the way
# there, or in the cache, and until the answer has left.
# presets: dev
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool bpftrace jq nbdcopy
((EUID == 0)) || skip "only root may trace"
bpftrace -e "usdt:$WEFT_BIN/weft-attach:weft:submit { } BEGIN { exit(); }" >"$TMP/out" 2>&1 ||
	skip "bpftrace cannot look at probes here: $(tail -n 1 "$TMP/out")"

# watch: traces attachment r while all of it is read again and again; the drawing is in $TMP/drawn.
watch() {
	local tracer
	"$WEFT_SRC/perf/trace/run" r 2 >"$TMP/drawn" 2>"$TMP/err" &
	tracer=$!
	while ! gone "$tracer"; do
		nbdcopy --request-size=65536 "nbd+unix:///?socket=$TMP/s" null:
	done
	wait "$tracer" || fail "$(<"$TMP/err")"
	cat "$TMP/drawn"
}

# drawn STAGE…: exactly these stages of reads, with a bar or none and four numbers each, none of
# them more than the last.
drawn() {
	printf '%s\n' "$@" >"$TMP/wanted"
	sed -n 's/^  \([a-z ]*[a-z]\)  .*/\1/p' "$TMP/drawn" >"$TMP/got"
	diff "$TMP/wanted" "$TMP/got" || fail "other stages"
	grep -qE '^reads: [1-9][0-9]* in 2 s; ' "$TMP/drawn" || fail "no reads were counted"
	sed 's/^  [a-z ]*#*//; s/ *([0-9]*)$//' "$TMP/drawn" | tail -n +2 |
		awk 'NF != 4 || $2 > $4 || $3 > $4 || $4 <= 0 { bad = 1 } END { exit bad }' ||
		fail "no figures"
}

start_donor --memory r=16M
weft attach "$URI" --socket "$TMP/s" >/dev/null
watch
drawn "submit to post" "post to complete" "complete to reply" "reply to sent"
weft detach r >/dev/null

echo "out of the cache"
weft attach "$URI" --socket "$TMP/s" --cache 32M >/dev/null
nbdcopy "nbd+unix:///?socket=$TMP/s" null:
watch
drawn "without the donor" "reply to sent"
weft detach r >/dev/null
