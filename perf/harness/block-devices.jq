# SPDX-License-Identifier: MIT
# What fio and the snapshots say, as medians over the rounds with their spread, like weft-perf's
# JSON.  The rounds of an earlier boot ($known) come first.  All counters keep their rounds, so that
# another boot can join.
def median: sort | length as $n | if $n == 0 then null elif $n % 2 == 1 then .[$n / 2 | floor] else (.[$n / 2 - 1] + .[$n / 2]) / 2 end;
def at($q): sort | ((length - 1) * $q) as $i | .[$i | floor] as $a | .[$i | ceil] as $b | $a + ($b - $a) * ($i - ($i | floor));
def digits: if . == 0 then 0 else (4 - (fabs | log10 | floor)) as $d | (. * pow(10; $d) | round) / pow(10; $d) end;
def summary: map(select(. != null)) | if length == 0 then empty else
	{median: (median | digits), iqr_share: ((if median == 0 then 0 else (at(0.75) - at(0.25)) / median end) | digits), rounds: map(digits)} end;

# {job: {before: [up, idle, donor, bridge], after: [...]}}
($snapshots | rtrimstr("\n") | split("\n") | map(split("\t")) | reduce .[] as [$job, $when, $line] ({};
	.[$job][$when] = ($line | split(" ") | map(tonumber? // null)))) as $cpu
| [$fio[0].jobs[] | (if .read.total_ios > 0 then .read else .write end) as $io | $cpu[.jobname] as $snap
	| (.jobname | split(".")) as [$round, $row, $who]
	| [range(4) | . as $i | if $snap.before[$i] == null then null else $snap.after[$i] - $snap.before[$i] end] as [$up, $idle, $donor, $bridge]
	| ($up * $cpus - $idle / 100) as $busy
	| ($io.io_bytes / 1e9) as $gb
	| {round: ($round | tonumber), row: $row, who: $who, counters: {
		ops_s: $io.iops, MB_s: ($io.bw_bytes / 1e6),
		p50_us: ($io.lat_ns.percentile["50.000000"] / 1000), p99_us: ($io.lat_ns.percentile["99.000000"] / 1000),
		fio_us: ((.usr_cpu + .sys_cpu) / 100 * .job_runtime * 1000 / $io.total_ios),
		donor_us: (if $donor then $donor / 1000 / $io.total_ios else null end), donor_s_GB: (if $donor then $donor / 1e9 / $gb else null end),
		bridge_us: (if $bridge then $bridge / 1000 / $io.total_ios else null end), bridge_s_GB: (if $bridge then $bridge / 1e9 / $gb else null end),
		system_us: ($busy * 1e6 / $io.total_ios), system_s_GB: ($busy / $gb), error: .error}}] as $samples
# perftest's, in the rounds that it ran in
| ($samples + ($perftests | rtrimstr("\n") | split("\n") | map(select(. != "") | split("\t") | (.[0] | split(".")) as [$round, $row]
	| {round: ($round | tonumber), row: $row, who: "perftest", counters: {error: 0, (.[1]): (.[2] | tonumber)}}))) as $samples
| (if any($samples[]; .counters.error != 0) then error("fio had errors: \([$samples[] | select(.counters.error != 0) | "\(.row) \(.who)"])") else . end)
| ($known[0] // {run: {boots: 0}, rows: {}}) as $old
| (reduce ($samples | sort_by(.round))[] as $s ($old.rows | map_values(map_values(with_entries(select(.value | type == "object")) | map_values(.rounds)));
	reduce ($s.counters | del(.error) | to_entries[] | select(.value != null)) as $c (.; .[$s.row][$s.who][$c.key] += [$c.value]))) as $rounds
| {
	run: {date: $date, commit: $commit, kernel: $kernel, emulator: $emulator, fio: $fio_version, nodes: $nodes, cpus: $cpus, boots: ($old.run.boots + 1),
		conditions: "\(if $clock == "" then "" else "each instruction takes a nanosecond, whatever the host does; " end)software emulation (QEMU TCG) on a shared machine, load \($load) before: functional truth and ratios within a round, no headline speeds",
		rounds: ([$rounds[][].ops_s // [] | length] | max), slice_ms: $slice, region_MiB: $size},
	contestants: ($contestants | rtrimstr("\n") | split("\n") | map(split("\t") | {key: .[0], value: {about: .[1], queue: .[2]}}) | from_entries),
	rows: ($rounds | map_values(. as $row | map_values(. as $of | map_values(summary)
		# how it does beside what its parts take alone, round by round
		+ ($row.perftest.p50_us as $wire | $row["null-bridge"].p50_us as $bridge | if $wire and $bridge and $of.p50_us then {
			"p50_us over null-bridge and perftest": ([range($wire | length) | $of.p50_us[.] / ($bridge[.] + $wire[.])] | median | digits)} else {} end)
		+ ($row.perftest.MB_s as $wire | if $wire then {
			"MB_s over perftest": ([range($wire | length) | $of.MB_s[.] / $wire[.]] | median | digits)} else {} end)
		# how weft's best, over verbs, does beside it
		+ ($row["weft-ublk"] // $row["weft-rdma"] | if . and $of.ops_s then . as $weft | {
			"weft ops_s over it": ([range($of.ops_s | length) | $weft.ops_s[.] / $of.ops_s[.]] | median | digits),
			"weft p50_us over it": ([range($of.p50_us | length) | $weft.p50_us[.] / $of.p50_us[.]] | median | digits)} else {} end))))
}
