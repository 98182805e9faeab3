# SPDX-License-Identifier: MIT
# What perf/peers/swap.sh wrote down, as medians over the rounds.  The rounds of an earlier boot
# ($known) come first.  A run without enough memory is held against the one with enough, and against
# the other swap spaces, of its round.
def median: sort | length as $n | if $n % 2 == 1 then .[$n / 2 | floor]
	else (.[$n / 2 - 1] + .[$n / 2]) / 2 end;
def digits: if . == 0 then 0
	else (4 - (fabs | log10 | floor)) as $d | (. * pow(10; $d) | round) / pow(10; $d) end;
def summary: {median: (median | digits), rounds: map(digits)};
def ns: if . == null then null else . / 1e9 end;
def table: split("\n")[:-1][] | split("\t");

# what a bridge says of itself at the end
def of_bridge: {key: .name,
	value: (.swap | {faults_major, faults_minor, grown_bytes, locked_bytes})};

[$runs | table | . as [$round, $load, $percent, $who, $right] | .[5:] | map(tonumber? // null)
	| {$round, $load, $percent, $who, $right, counters: {s: .[0],
		major_faults: .[1], pages_in: .[2], pages_out: .[3], oom_kills: .[4],
		peak_MiB: (.[5] / 1048576), bridge_s: (.[6] | ns), donor_s: (.[7] | ns)}}] as $all
| [$all[] | select(.right != "yes" or .counters.oom_kills > 0)
	| "\(.load) with \(.percent) % over \(.who): "
		+ "\(if .right == "yes" then "right" else "wrong or no" end) results, "
		+ "\(.counters.oom_kills) kills for want of memory"] as $wrong
| [$all[] | select(.round != "-") | . as $run
	| def beside($who; $percent): first($all[] | select(.round == $run.round
			and .load == $run.load and .who == $who and .percent == $percent)
		| $run.counters.s / .counters.s) // null;
	.counters += {over_local: beside("local"; "100"),
		over_nbdkit: beside("nbdkit"; .percent),
		over_nvme_tcp: beside("nvme-tcp"; .percent),
		over_nvme_rdma: beside("nvme-rdma"; .percent)}] as $all
| ($known[0] // {run: {boots: 0}, contestants: {}, rows: {}}) as $old
| (reduce $all[] as $run ($old.rows | map_values(map_values(map_values(.rounds)));
	reduce ($run.counters | to_entries[] | select(.value != null)) as $c (.;
		.["\($run.load) \($run.percent)"][$run.who][$c.key] += [$c.value]))) as $rounds
| {
	run: {$date, $commit, $kernel, $emulator, $nodes, $cpus,
		boots: ($old.run.boots + 1), set_MiB: $set, complete: ($status[0] != null),
		$page_cluster,
		conditions: ((if $clock == "" then ""
			else "each instruction takes a nanosecond, whatever the host does; " end)
			+ "software emulation (QEMU TCG) on a shared machine, "
			+ "load \($load) before: functional truth, faults, and ratios within a "
			+ "round, no headline speeds"),
		bridges: ([$status[0].attachments[]? | of_bridge] | from_entries)},
	contestants: ($old.contestants
		+ ([$contestants | table | {key: .[0], value: .[1]}] | from_entries)),
	rows: ($rounds | map_values(map_values(map_values(summary)))),
	wrong: $wrong
}
