# SPDX-License-Identifier: MIT
# weft bench --methods: some methods over a line, their reports, and what is refused; nothing is
# left behind.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool jq xmllint

export TMPDIR=$TMP
weft bench --methods=bulk,library,push,move --transports tcp --rtt 3 --quick --span 16M \
	--seed 5 --out "$TMP/out" >"$TMP/text" 2>"$TMP/err" || fail "status $?: $(cat "$TMP/err")"
run=$TMP/out/report.json
holds() { # FILTER
	jq -e "$1" "$run" >/dev/null || fail "not so: $1: $(cat "$run")"
}
holds '.weft_bench_methods == 1 and .seed == 5 and .region_bytes == 16777216 and .quick'
holds '[.cells[] | "\(.method) \(.mode)"] ==
	["bulk direct", "library direct", "library managed", "push hashing", "move pre-copy"]'
holds 'all(.cells[]; .rtt_ms == 3 and .transport == "tcp" and .peer == false)'
holds 'all(.cells[].works[]; (.seconds > 0) and (.bytes > 0) and (.ops > 0) and (.MB_s > 0) and
	.wire_per_byte >= 0 and (.cpu_s_per_GB | .client.user >= 0 and .donor.system >= 0 and
	.machine >= 0 and has("bridge")))'
holds '.cells[1:3] | all(.[]; .ready_ms > 3 and .first_ms > 2.9 and .resident_bytes > 0 and
	(.works | keys == ["exceeds", "fits", "random_read", "random_write", "read", "update",
		"write"]) and all(.works[]; .p50_us > 0 and .p99_us >= .p50_us))'
# Direct reads go over the line each time; all that was read crossed it once.
holds '.cells[1].works.random_read.p50_us > 2900 and
	(.cells[1].works.read.wire_per_byte | . > 1 and . < 1.5)'
holds '(.cells[3].works | has("copy") and has("update")) and .cells[4].frozen_ms >= 0'
holds '(.not_measured | length) > 5 and all(.not_measured[]; .what and .why) and
	all(.published[]; .what and .figure and .conditions and .source) and
	all(.methods[]; .method and .mode and .needs and .effort) and (.decisions | length) > 5'

echo "== the reports"
cmp "$TMP/text" "$TMP/out/report.md" || fail "the text is another one"
grep -q '^| library managed |' "$TMP/text" || fail "$(cat "$TMP/text")"
grep -q '^## Which method when' "$TMP/text" || fail "no decisions"
xmllint --noout "$TMP/out/report.html" || fail "the page is not well-formed"
grep -q 'Which method when' "$TMP/out/report.html" || fail "no decisions on the page"
# What others published is a line of its own kind, in the plots that it belongs to alone.
[[ $(grep -c 'class="rt".*published: managed mount, reads, 25 ms: over 500 MB/s<' \
	"$TMP/out/report.html") = 1 ]] || fail "no reference line"
! grep -q 'class="[lm] [^>]*>.*published' "$TMP/out/report.html" || fail "drawn as measured"
awk -F, 'NR == 1 {n = NF} NF != n {exit 1} END {exit NR < 15}' "$TMP/out/report.csv" ||
	fail "$(cat "$TMP/out/report.csv")"
weft bench --from "$run" | cmp - "$TMP/text" || fail "an earlier run is shown otherwise"
weft bench --compare "$run" "$run" >"$TMP/compared" || fail "compare"
grep -q '^library managed .* 1.00$' "$TMP/compared" || fail "$(cat "$TMP/compared")"

ended() { [[ -z $(our_processes) ]]; }
wait_for ended
! compgen -G "$TMP/weft-bench.*" >/dev/null || fail "left: $(ls -d "$TMP"/weft-bench.*)"

echo "== Ctrl-C ends it and all that it started"
rm -f "$TMP/err" # of an earlier one
weft bench --methods=library --rtt 1 >"$TMP/text" 2>"$TMP/err" &
pid=$!
wait_for -t 60 grep -q 'library' "$TMP/err"
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
[[ $status = 130 ]] || fail "exit status $status: $(cat "$TMP/err")"
wait_for -t 60 ended
! compgen -G "$TMP/weft-bench.*" >/dev/null || fail "left: $(ls -d "$TMP"/weft-bench.*)"

echo "== without a line, and a device that somebody set up"
truncate -s 16M "$TMP/image"
weft bench --methods=bulk,nvme-tcp,srp --at 127.0.0.1 --device nvme-tcp="$TMP/image" --quick \
	--span 16M --transports tcp,rdma --out "$TMP/here" >"$TMP/text" 2>"$TMP/err" ||
	fail "status $?: $(cat "$TMP/err")"
run=$TMP/here/report.json
holds '.at == "127.0.0.1" and [.cells[] | select(.transport == "tcp") |
	"\(.method) \(.mode) \(.rtt_ms) \(.peer)"] ==
	["bulk direct 0 false", "nvme-tcp kernel 0 true"]'
holds '.cells[] | select(.peer) | .works | keys == ["exceeds", "fits", "random_read",
	"random_write", "read", "update", "write"] and all(.[]; .MB_s > 0)'
grep -q 'over its own address 127.0.0.1' "$TMP/text" || fail "$(cat "$TMP/text")"
grep -q 'whoever reaches 127.0.0.1 can read and write, without a key' "$TMP/err" ||
	fail "nothing says that it lends without a key: $(cat "$TMP/err")"
# Where there is no RDMA device, the page says so.
[[ -e /sys/class/infiniband ]] ||
	grep -q '^- bulk direct over rdma: .*no RDMA device' "$TMP/text" ||
	fail "$(cat "$TMP/text")"
status=0
weft bench --methods=srp --at 127.0.0.1 --device srp="$TMP/image" --quick --span 32M \
	>"$TMP/text" 2>"$TMP/err" || status=$?
[[ $status = 1 ]] || fail "a device that is too small: $status: $(cat "$TMP/err")"
grep -q 'too small for this --span' "$TMP/err" || fail "$(cat "$TMP/err")"

echo "== what cannot be is said"
refused() { # WORDS OPTION…
	local status=0
	weft bench "${@:2}" >"$TMP/text" 2>"$TMP/err" || status=$?
	[[ $status = 2 ]] || fail "status $status: ${*:2}"
	grep -qF -- "$1" "$TMP/err" || fail "$(cat "$TMP/err")"
}
refused "there is no 'maps'" --methods=bulk,maps
refused "round trips in ms" --methods --rtt 1,x
refused "belong to --methods" --quick weft://127.0.0.1/r
refused "there is no 'x'" --methods --device x=/dev/null
refused "such as nvme-tcp=/dev/nvme0n1" --methods --device nvme-tcp
refused "--at makes none" --methods --at 127.0.0.1 --rtt 1
refused "belong to --methods" --at 127.0.0.1 weft://127.0.0.1/r
refused "at least 16M" --methods --span 4M
refused "lends regions of its own" --methods weft://127.0.0.1/r
