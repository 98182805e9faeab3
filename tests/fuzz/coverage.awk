# SPDX-License-Identifier: MIT
# From tests/fuzz/parsers and what llvm-cov exports as lcov: how many lines of each file were
# reached.  Parsers come first; their functions that read nothing of others are counted apart, and
# said with the reason.  Fails where a parser is under 90 %, or a function is not there, unless
# `some` of the programs ran alone.
FILENAME ~ /parsers$/ {
	if (/^#/ || !NF)
		next
	if (!/^\t/) {
		parser[file = $1] = 1
		next
	}
	if (!/^\t\t/) {
		why = substr($0, 2, length($0) - 2)
		next
	}
	for (i = 1; i <= NF; i++)
		reason[file, $i] = why
	next
}
/^SF:/ {
	file = substr($0, 4)
	gsub(/.*\/\.\.\//, "", file)
	if (substr(file, 1, length(root)) == root)
		file = substr(file, length(root) + 1)
	delete begins
	nr_lines = split("", lines)
}
/^FN:/ {
	split(substr($0, 4), fn, ",")
	sub(/.*:/, "", fn[2])
	begins[fn[1] + 0] = fn[2]
}
/^DA:/ {
	split(substr($0, 4), da, ",")
	lines[++nr_lines] = da[1] + 0
	reached[da[1] + 0] = da[2] > 0
}
/^end_of_record/ {
	tell()
}
function tell(    i, name, all, hit, apart, text) {
	for (i = 1; i <= nr_lines; i++) {
		if (lines[i] in begins)
			name = begins[lines[i]]
		if ((file, name) in reason) {
			seen[file, name]
			apart[reason[file, name]]++
			continue
		}
		all++
		hit += reached[lines[i]]
	}
	if (!hit)
		return
	text = sprintf("%3d %% of %4d lines  %s\n", 100 * hit / all, all, file)
	for (why in apart)
		text = text sprintf("         and %4d     that %s\n", apart[why], why)
	if (!(file in parser)) {
		others = others text
		return
	}
	delete parser[file]
	printf "%s", text
	sum += all
	sum_hit += hit
	if (hit < 0.9 * all)
		failed = failed "  " file
}
END {
	for (file in parser)
		failed = failed "  " file " (not reached)"
	for (key in reason)
		if (!(key in seen)) {
			split(key, part, SUBSEP)
			missing = missing "  " part[1] " " part[2]
		}
	printf "%3d %% of %4d lines  of all parsers\n\nwhat else they call:\n%s", \
		sum ? 100 * sum_hit / sum : 0, sum, others
	if (some)
		exit 0
	if (failed)
		print "under 90 %:" failed
	if (missing)
		print "no such function:" missing
	exit failed != "" || missing != ""
}
