# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# To be sourced in the project's root, by programs that measure and record.

# bounded SECONDS PROGRAM ARGUMENT…: the program, which calls this first, ends after that time at
# the latest, and so does what it has started.
bounded() {
	[[ ${WEFT_PERF_BOUNDED-} ]] || WEFT_PERF_BOUNDED=1 exec timeout -k 30 "$@"
}

# The commit that is measured, and whether there is more than that.
measured_commit() {
	local commit
	commit=$(git rev-parse --short=12 HEAD)
	git diff --quiet HEAD -- fabric transports nbd-bridge perf \
		':!perf/results' ':!*.md' || commit+=", with changes"
	echo "$commit"
}

# record_tables NAME COMMIT: what comes in as Markdown, a title and a paragraph of conditions first,
# is perf/results/NAME.md; its tables, a line a row, are NAME.json.  What people have written in
# NAME.md below "## Notes" stays.
record_tables() {
	local md=perf/results/$1.md notes=''
	[[ ! -f $md ]] || notes=$(sed -n '/^## Notes$/,$p' "$md")
	cat >"$md.new"
	jq -Rs --arg commit "$2" '
		[split("\n")[] | select(. != "")] as $lines |
		{commit: $commit, conditions: $lines[1],
		 rows: [foreach $lines[2:][] as $line ({said: "", head: null};
			if $line | startswith("|") | not then {said: $line, head: null}
			else .cells = ($line | ltrimstr("|") | rtrimstr("|") | split("|") |
					map(gsub("^ +| +$"; ""))) |
				if .head == null then .head = .cells | .cells = null
				elif .cells | all(.[]; test("^-+$")) then .cells = null
				else . end
			end;
			select(.cells) | . as $at | {table: .said} + ([.head, .cells] | transpose |
				map({key: (if .[0] == "" then "what" else .[0] end),
					value: (.[1] | tonumber? // .)}) | from_entries))]}' \
		"$md.new" | jq -r --from-file perf/harness/lines.jq >"perf/results/$1.json"
	[[ ! $notes ]] || printf '\n%s\n' "$notes" >>"$md.new"
	mv "$md.new" "$md"
	echo "recorded in perf/results/$1.md and $1.json"
}
