# SPDX-License-Identifier: MIT
# A document with a line for each thing that was measured: what a person can still read, and diff.
# jq -r --from-file perf/harness/lines.jq
def is_flat: all(.[]; type != "object" and type != "array");
def lines($depth):
	if type != "object" and type != "array" or $depth == 0 or is_flat then tojson
	elif type == "object" then
		"{" + (to_entries | map("\n\(.key | tojson):\(.value | lines($depth - 1))") | join(",")) + "}"
	else "[" + (map("\n" + lines($depth - 1)) | join(",")) + "]" end;
lines(if (.rows | type) == "object" then 3 else 2 end)
