# SPDX-License-Identifier: MIT
# weft bench --compare: nothing between a run and itself, or the same with other noise; a slower one
# is found, and said.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

# make_run SEED FACTOR >FILE: 9 rounds with noise of 10 %, reads through the file at FACTOR of the
# speed.
make_run() {
	jq -n --argjson seed "$1" --argjson factor "$2" '
		def noise($i): (($seed * 7919 + $i * 104729) * 16807 % 2147483647) / 2147483647 * 0.2 + 0.9;
		def figure($middle; $i): {rounds: [range(9) | $middle * noise(. * 31 + $i * 977)]};
		def cell($path; $op; $block; $depth; $i): (if $path == "tcp file" and $op == "read" then $factor else 1 end) as $f |
			{path: $path, op: $op, block_bytes: $block, depth: $depth, ops_s: figure(10000 * $f; $i),
				cpu_us: {all: figure(50 / $f; $i + 500)}};
		{weft_bench: 1, when: "2026-11-25T0\($seed):00:00Z", machine: {}, paths: [], control_ops_s: figure(60000; 999),
			cells: [["tcp direct", "tcp socket", "tcp file"][] as $p | ["read", "write"][] as $o | [[4096, 1], [4096, 16], [1048576, 16]][] |
				cell($p; $o; .[0]; .[1]; ($p | length) * 100 + ($o | length) * 10 + .[1])]}'
}
make_run 1 1 >"$TMP/a.json"
make_run 2 1 >"$TMP/a2.json"
make_run 3 0.5 >"$TMP/b.json"

for other in a a2; do
	weft bench --compare "$TMP/a.json" "$TMP/$other.json" >"$TMP/out" ||
		fail "a and $other: exit status $?: $(cat "$TMP/out")"
	grep -q '^0 better, 0 worse, 36 without' "$TMP/out" || fail "$(cat "$TMP/out")"
done
status=0
weft bench --compare "$TMP/a.json" "$TMP/b.json" >"$TMP/out" || status=$?
[[ $status = 1 ]] || fail "exit status $status"
grep -q '^0 better, 6 worse, 30 without' "$TMP/out" || fail "$(cat "$TMP/out")"
[[ $(grep -c '^tcp file  *read .*worse$' "$TMP/out") = 6 ]] || fail "$(cat "$TMP/out")"
weft bench --compare "$TMP/b.json" "$TMP/a.json" --json >"$TMP/out" || fail "better is no failure"
jq -e '.worse == 0 and ([.rows[] | select(.verdict == "better")] | length) == 6 and
	all(.rows[] | select(.verdict == "better"); if .what == "ops_s" then .low > 1.5 and .high < 2.5 else .low > 0.4 and .high < 0.65 end)' \
	"$TMP/out" >/dev/null || fail "$(cat "$TMP/out")"

# Runs of the time when the two kinds of device were one path, "device".
jq '(.cells[] | select(.path == "tcp file")).path = "tcp device"' "$TMP/a.json" >"$TMP/old.json"
weft bench --compare "$TMP/old.json" "$TMP/b.json" >"$TMP/out" ||
	fail "exit status $?: $(cat "$TMP/out")"
grep -q '^0 better, 0 worse, 24 without' "$TMP/out" &&
	grep -qx 'only in A, wholly or in part: tcp device' "$TMP/out" &&
	grep -qx 'only in B, wholly or in part: tcp file' "$TMP/out" || fail "$(cat "$TMP/out")"
weft bench --compare "$TMP/old.json" "$TMP/old.json" >"$TMP/out"
[[ $(grep -c '^tcp device ' "$TMP/out") = 12 ]] || fail "$(cat "$TMP/out")"

! weft bench --compare "$TMP/a.json" 2>"$TMP/err" || fail "one file"
grep -q 'the JSON files of two runs' "$TMP/err" || fail "$(cat "$TMP/err")"

# Figures that cannot be trusted are said to be so, in a run and in a comparison; the columns are
# what they say.
jq '(.cells[] | select(.path == "tcp file" and .depth == 1 and .op == "read").ops_s) = {rounds: [100, 110, 120, 130, 500, 900, 1000, 1100, 1200],
	median: 500, spread_percent: 176}' "$TMP/a.json" >"$TMP/noisy.json"
weft bench --compare "$TMP/noisy.json" "$TMP/noisy.json" >"$TMP/out"
grep -q ' MEDIAN A  *MEDIAN B  *MID B/A  *95% BETWEEN ' "$TMP/out" || fail "$(cat "$TMP/out")"
grep -q '^MID B/A: .*Hodges and Lehmann' "$TMP/out" || fail "$(cat "$TMP/out")"
[[ $(grep -c '^tcp file  *read .*(noisy)$' "$TMP/out") = 1 ]] || fail "$(cat "$TMP/out")"
grep -q '^1 row is noisy: .*Too short, do not trust' "$TMP/out" || fail "$(cat "$TMP/out")"
weft bench --from "$TMP/noisy.json" >"$TMP/out"
[[ $(grep -c '^  tcp file .*(noisy)$' "$TMP/out") = 1 ]] || fail "$(cat "$TMP/out")"
grep -q '^1 figure is noisy: .*Too short, do not trust' "$TMP/out" || fail "$(cat "$TMP/out")"
weft bench --compare "$TMP/a.json" "$TMP/a2.json" >"$TMP/out"
! grep 'noisy' "$TMP/out" || fail "noisy for nothing"
