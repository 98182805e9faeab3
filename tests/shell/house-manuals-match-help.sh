# SPDX-License-Identifier: MIT
# Each command has a manual.  The manual has each option of the command's table with its argument,
# and the table each of the manual; --help shows the table; and weft.1 has each command.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool mandoc

# options_of PAGE: the heads of its list of options, each a line, as a reader sees them.
options_of() {
	{
		printf '.Dd November 29, 2026\n.Dt OPTIONS 1\n.Os\n.Sh NAME\n'
		sed -n 's/^\.It Fl/.Pp\n.Fl/p' "$1"
	} | mandoc -Tascii -O width=200 | sed 's/.\x08//g' | sed -n 's/^ *\(--.*\)/\1/p'
}

# same WHAT: $TMP/has and $TMP/says are the same lines.
bad=0
same() {
	if ! diff "$TMP/has" "$TMP/says" >"$TMP/diff"; then
		echo "$1 differ:"
		cat "$TMP/diff"
		bad=1
	fi
}

commands=()
for program in "$WEFT_BIN"/weft-*; do
	command=${program##*/weft-}
	[[ $command != perf && $command != count ]] || continue # tools of the build tree
	commands+=("$command")
	page=$WEFT_SRC/fabric/man/weft-$command.1
	[[ -s $page ]] || fail "weft $command has no manual"
	# "--name", "--name value", "--name[=value]": in small letters, as a manual writes them.
	weft "$command" --completion-table >"$TMP/table" || fail "weft $command --completion-table"
	awk -F'\t' '$1 == "option" { print $2 ($4 == "-" ? "" : ($4 ~ /^\[=/ ? "" : " ") $4) }' \
		"$TMP/table" >"$TMP/options"
	[[ -s $TMP/options ]] || fail "weft $command has no table of options"

	tr '[:upper:]' '[:lower:]' <"$TMP/options" | sort >"$TMP/has"
	options_of "$page" | sed 's/ | /|/g' | tr '[:upper:]' '[:lower:]' | sort >"$TMP/says"
	same "the options of weft $command (<) and of weft-$command.1 (>)"

	weft "$command" --help >"$TMP/help" || fail "weft $command --help"
	sort "$TMP/options" >"$TMP/has"
	sed -n 's/^  \(--.*\)/\1/p' "$TMP/help" | sed 's/  .*//' | sort >"$TMP/says"
	same "the options of weft $command (<) and of its --help (>)"
done

printf '%s\n' "${commands[@]}" | sort >"$TMP/has"
weft --completion-table | cut -f 2 | sort >"$TMP/says"
same "the commands that there are (<) and those of weft (>)"
sed -n 's/^\.It Xr weft-\([a-z]*\) 1$/\1/p' "$WEFT_SRC/fabric/man/weft.1" | sort >"$TMP/says"
same "the commands that there are (<) and those of weft.1 (>)"
exit $bad
