# SPDX-License-Identifier: MIT
# What weft bench --methods says of a method's source: the files are there, and have about as many
# lines.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
shopt -s nullglob

nr=0
while read -r pattern said; do
	files=()
	cd "$WEFT_SRC"
	eval "files=($pattern)"
	((${#files[@]})) || fail "$pattern names no file"
	lines=$(cat "${files[@]}" | wc -l)
	((lines > said * 3 / 4 && lines < said * 4 / 3)) ||
		fail "$pattern has $lines lines, and perf/methods/table.c says $said"
	nr=$((nr + 1))
done < <(sed -n 's/^#define [A-Z]* \.room = "\(.*\)", \.lines = \([0-9]*\)$/\1 \2/p' \
	"$WEFT_SRC/perf/methods/table.c")
((nr == 8)) || fail "found $nr rooms"
