# Each command has a manual, and both name the same options.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool mandoc

bad=0
for program in "$WEFT_BIN"/weft-*; do
	command=${program##*/weft-}
	[[ $command != perf && $command != count ]] || continue # tools of the build tree
	page=$WEFT_SRC/fabric/man/weft-$command.1
	[[ -s $page ]] || fail "weft $command has no manual"
	weft "$command" --help >"$TMP/help" || fail "weft $command --help"
	grep -oE '(^|[^a-z-])--[a-z][a-z-]*' "$TMP/help" | grep -oE -- '--[a-z-]+' | sed '/^--help$/d' | sort -u >"$TMP/has"
	mandoc -Tascii "$page" | sed 's/.\x08//g' | sed -n '/^DESCRIPTION/,$p' >"$TMP/text"
	grep -oE '^ +--[a-z][a-z-]*' "$TMP/text" | tr -d ' ' | sed '/^--help$/d' | sort -u >"$TMP/says"
	if ! diff "$TMP/has" "$TMP/says" >"$TMP/diff"; then
		echo "weft $command: --help (<) and weft-$command.1 (>) differ:"
		cat "$TMP/diff"
		bad=1
	fi
done
exit $bad
