# SPDX-License-Identifier: MIT
# The Markdown of what block-devices.jq made.
def number: if . == null then "-" elif . == 0 then "0" elif . >= 99500 then "\(. / 1000 | round)k" elif . >= 100 then "\(round)" elif . >= 10 then "\(. * 10 | round / 10)"
	elif . >= 1 then "\(. * 100 | round / 100)" else "\(. * 1000 | round / 1000)" end;
def table($columns): (["" ] + [$columns[].title] | "| " + join(" | ") + " |"),
	("|---|" + ($columns | map("---:|") | add)),
	(to_entries[] | .key as $who | .value as $v | "| " + ([$who] + [$columns[] | .path as $p | $v | getpath($p) | number] | join(" | ")) + " |");
def column($title; $path): {title: $title, path: $path};
def median($title; $counter): column($title; [$counter, "median"]);

[median("ops/s"; "ops_s"), median("MB/s"; "MB_s"), median("p50 us"; "p50_us"), median("p99 us"; "p99_us"),
	median("donor s/GB"; "donor_s_GB"), median("bridge s/GB"; "bridge_s_GB"), median("system s/GB"; "system_s_GB"),
	median("donor us/op"; "donor_us"), median("bridge us/op"; "bridge_us"), median("system us/op"; "system_us"),
	column("spread"; ["ops_s", "iqr_share"]),
	column("weft's ops/s over it"; ["weft ops_s over it"]), column("weft's p50 over it"; ["weft p50_us over it"])] as $columns
| "fio (libaio, direct, random places) does the same work on each block device in turn; each round begins with another contestant.",
"Figures are medians over the rounds; spread is the interquartile range of ops/s over its median; the last two columns are medians of",
"the ratios of \(if .contestants["weft-ublk"] then "weft-ublk" else "weft-rdma" end) to it within a round. \"donor\" and \"bridge\" are the CPU time of these processes, \"system\" is what all processors of \(if .run.nodes == 1 then "the machine" else "the borrower's machine" end)",
"were busy with, kernel threads and fio included. nvmet, LIO and rxe work in the kernel: theirs is in the system's alone.",
"",
(.run | to_entries[] | "- \(.key): \(.value | tojson)"),
"",
"| contestant | how it was set up | its queue |", "|---|---|---|",
(.contestants | to_entries[] | "| \(.key) | \(.value.about) | \(.value.queue) |"),
(.rows | to_entries[] | select(.key | startswith("one-sided") | not) | "", "### \(.key)", "", (.value | del(.perftest) | table($columns))),
(if any(.rows[]; .perftest) then
	"", "### Beside its parts", "",
	"perftest (ib_read_lat -e, ib_read_bw -e at the same depth) runs right after null-bridge. What a device over RDMA takes for a read at depth 1,",
	"over the sum of null-bridge and ib_read_lat; and its rate with 1 MiB over ib_read_bw.",
	(.rows | to_entries[] | select(.value.perftest) | "", "\(.key):", "",
		(.value | with_entries(select(.key | test("^(perftest|null-bridge|nvme-rdma|srp|weft-srp|weft-ublk|weft-rdma)$")))
			| table([median("p50 us"; "p50_us"), median("MB/s"; "MB_s"), column("p50 over both"; ["p50_us over null-bridge and perftest"]), column("MB/s over perftest"; ["MB_s over perftest"])])))
else empty end),
(if any(.rows | keys[]; startswith("one-sided")) then
	"", "### One-sided means it", "",
	"Once a boot, the region's size once over in order, 1 MiB at depth 4: what the donor's process did for it.",
	(.rows | to_entries[] | select(.key | startswith("one-sided")) | "", "\(.key[10:]):", "",
		(.value | table([median("MB/s"; "MB_s"), median("donor s/GB"; "donor_s_GB"), median("bridge s/GB"; "bridge_s_GB"), median("system s/GB"; "system_s_GB")])))
else empty end)
