# SPDX-License-Identifier: MIT
# weft status --prometheus: what there is to see of caches, of who holds a region, of memory that is
# held; samples whose names do not change with a restart or a state; no number where there is none;
# and the format's rules.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io jq

metrics() {
	weft status --prometheus >"$TMP/metrics" || fail "exit status $?"
	rules
}
has() { # LINE, as a pattern
	grep -qxE "$1" "$TMP/metrics" || fail "no '$1' in: $(cat "$TMP/metrics")"
}
# The format, and what `promtool check metrics` asks beside it.
rules() {
	awk '
		function wrong(why) { print why ": " $0; bad = 1 }
		/^# HELP / { if ($3 in help) wrong("HELP twice"); help[$3] = NF > 3; next }
		/^# TYPE / {
			if (!help[$3]) wrong("no HELP")
			type[$3] = $4; now = $3
			if ($4 == "counter" && $3 !~ /_total$/) wrong("a counter without _total")
			if ($4 != "counter" && $3 ~ /_total$/) wrong("_total is a counter")
			if ($3 ~ /_(ms|us|ns|kb|mb|s|b|sec|count|sum|bucket|gauge|counter|summary)(_|$)/) wrong("a unit that is short, or a type in the name")
			if ($3 !~ /^[a-z][a-z0-9_]*$/) wrong("name")
			next
		}
		!/^[a-z_]+\{([a-z_]+="([^"\\]|\\["\\n])*",?)+\} (NaN|[0-9]+(\.[0-9]+)?)$/ { wrong("no sample"); next }
		{
			name = $0; sub(/\{.*/, "", name); base = name
			if (type[now] == "summary") sub(/_(sum|count)$/, "", base)
			if (base != now) wrong("not behind its TYPE")
			series = $0; sub(/ [^ ]*$/, "", series)
			if (series in seen) wrong("twice")
			seen[series] = 1
		}
		END { exit bad }' "$TMP/metrics" >"$TMP/wrong" || fail "$(cat "$TMP/wrong")"
	if command -v promtool >/dev/null; then
		promtool check metrics <"$TMP/metrics" >"$TMP/wrong" 2>&1 ||
			fail "promtool: $(cat "$TMP/wrong")"
	fi
}
series() {
	sed -n '/^#/!s/ [^ ]*$//p' "$TMP/metrics" | sort
}

metrics
port=$(free_port)
serve=(--listen "127.0.0.1:$port" --memory r=4M --memory "odd \"name\\=1M")
start_donor "${serve[@]}"
weft attach "weft://127.0.0.1:$port/r" --socket "$TMP/s" --name one --cache 4M >/dev/null
metrics
has 'weft_request_seconds\{name="one",kind="read",quantile="0.99"\} NaN'
has 'weft_request_seconds_count\{name="one",kind="read"\} 0'
qemu-io -f raw -t writeback -c 'write -P 1 0 64k' \
	-c 'read 0 4k' "nbd+unix:///?socket=$TMP/s" >/dev/null
metrics
has 'weft_attachment_state\{name="one",state="ready"\} 1'
has 'weft_attachment_state\{name="one",state="stale"\} 0'
has 'weft_cache_hits_total\{name="one"\} [1-9][0-9]*'
has 'weft_cache_dirty_bytes\{name="one"\} [0-9]+'
has 'weft_cache_push_errors_total\{name="one"\} 0'
has 'weft_request_seconds\{name="one",kind="read",quantile="0.99"\} 0\.0[0-9]+'
has "weft_donor_attachment_connections\\{listen=\"127.0.0.1:$port\",region=\"r\",attachment=\"one\",mode=\"write\",identity=\"\",encrypted=\"no\"\\} [1-9]"
has "weft_donor_region_size_bytes\\{listen=\"127.0.0.1:$port\",region=\"odd .\"name..\"\\} 1048576"
has 'weft_transport\{name="one",donor="weft://.*",transport="tcp"\} 1'
has 'weft_transport\{name="one",donor="weft://.*",transport="rdma"\} 0'
has 'weft_transport\{name="one",donor="weft://.*",transport="tcp\+ktls"\} 0'

# Two borrowers with one name are one sample.
weft detach one >/dev/null
weft attach "weft://127.0.0.1:$port/r" --socket "$TMP/s" --name one --read-only --shared >/dev/null
mkdir -m 700 "$TMP/run2"
WEFT_RUN_DIR=$TMP/run2 weft attach "weft://127.0.0.1:$port/r" --socket "$TMP/t" --name one \
	--read-only --shared >/dev/null
one_bridge=$(weft status one --json | jq '.attachments[0].lanes | length')
metrics
has "weft_donor_attachment_connections\\{listen=\"127.0.0.1:$port\",region=\"r\",attachment=\"one\",mode=\"shared\",identity=\"\",encrypted=\"no\"\\} $((2 * one_bridge))"
WEFT_RUN_DIR=$TMP/run2 weft detach one >/dev/null
metrics

# A restart changes no name; a crash shows what is held, and how long.
before=$(series)
stop_donor KILL || :
metrics
has "weft_held_size_bytes\\{listen=\"127.0.0.1:$port\",region=\"r\",epoch=\"[0-9a-f]{16}\"\\} 4194304"
has "weft_held_left_seconds\\{listen=\"127.0.0.1:$port\",region=\"r\",epoch=\"[0-9a-f]{16}\"\\} (2[0-9][0-9]|300)"
has 'weft_attachment_ready\{name="one"\} 0'
start_donor "${serve[@]}"
ready() {
	weft status one | grep '^one .* ready$' >/dev/null
}
wait_for ready
metrics
diff <(echo "$before") <(series) || fail "other series after a restart"
weft detach one >/dev/null
