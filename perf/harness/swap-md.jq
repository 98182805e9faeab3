# SPDX-License-Identifier: MIT
# The Markdown of what swap.jq made.
def number: if . == null then "-" elif . == 0 then "0" elif . >= 100 then "\(round)"
	elif . >= 10 then "\(. * 10 | round / 10)" else "\(. * 100 | round / 100)" end;
def about: {
	"program": "four threads fill, check, check and rewrite pages at random, and check again",
	"sort": "sort(1) of lines of 64 bytes, with a buffer of a fixed size",
	"redis": ("a Redis server with values of 4 KiB, filled, asked for each key in order, and "
		+ "as often at random"),
	"numpy": "k-means with numpy: three passes over one array, then points at random"};
[["s", "s"], ["over_local", "over local"], ["over_nbdkit", "over nbdkit"],
	["over_nvme_tcp", "over NVMe TCP"], ["over_nvme_rdma", "over NVMe RDMA"],
	["major_faults", "major faults"], ["pages_in", "pages in"], ["pages_out", "pages out"],
	["bridge_s", "bridge s"], ["donor_s", "donor s"]] as $columns
| .rows as $rows
| "# Programs that swap",
"",
"Each program runs in a group of processes that has all of the memory it wants (local), or 75 or",
"50 % of that at most (memory.max), and the rest in one swap space; one after the other, each",
"round beginning with another swap space. Figures are medians over the rounds; what is \"over\"",
"something is the median of the ratios of times within a round. All results were right, and",
"nobody was killed for want of memory. Pages are those that the kernel read and wrote, faults",
"those of the program that waited. \"bridge\" and \"donor\" are the CPU time of these processes,",
"where there are any.",
"",
(.run | to_entries[] | "- \(.key): \(.value | tojson)"),
"",
"| swap space | how it was set up |", "|---|---|",
(.contestants | to_entries[] | "| \(.key) | \(.value) |"),
((reduce ($rows | keys_unsorted[] | split(" ")[0]) as $load ([];
		if index($load) then . else . + [$load] end))[] as $load
	| $rows["\($load) 100"].local as $local
	| "", "## \($load)", "",
	("\(about[$load]): \($local.s.median | number) s with "
		+ "\($local.peak_MiB.median | number) MiB, all local."),
	(("75", "50") as $percent | $rows["\($load) \($percent)"] | select(.)
		| "", "\($percent) %:", "",
		"| | " + ($columns | map(.[1]) | join(" | ")) + " |",
		"|---|" + ($columns | map("---:|") | add),
		(to_entries[] | . as {key: $who, value: $v} | "| " + ([$who,
			($columns[] | $v[.[0]].median | number)] | join(" | ")) + " |")))
