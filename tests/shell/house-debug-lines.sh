# SPDX-License-Identifier: MIT
# --debug of every program turns debug lines on, of the areas that it names; $WEFT_DEBUG does so
# too.  Without them there is none.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

for program in "$WEFT_BIN"/weft-*; do
	command=${program##*/weft-}
	[[ $command != perf && $command != count ]] || continue # tools of the build tree
	areas=$(weft "$command" --completion-table | awk -F'\t' '$2 == "--debug" { print $6 }')
	sorted=$(tr ' ' '\n' <<<"$areas" | sort -u | paste -sd ' ')
	[[ -n $areas && $areas = "$sorted" ]] || fail "weft $command: areas: $areas"
	list=${areas// /, }
	weft "$command" --help >"$TMP/help"
	grep -qxF "$list" <(sed 's/^ *//' "$TMP/help") || fail "weft $command --help: no $list"
	printf '%s\n' "$areas" | tr ' ' '\n' >>"$TMP/areas"
	status=0
	weft "$command" --debug=main,nothing >"$TMP/out" 2>"$TMP/err" || status=$?
	[[ $status = 2 && ! -s $TMP/out ]] || fail "weft $command: exit status $status"
	grep -q "^weft-$command: --debug: there is no area '.*'; there are: $list$" "$TMP/err" ||
		fail "$(<"$TMP/err")"
done
# The manual lists what any program has.
sort -u "$TMP/areas" >"$TMP/has"
sed -n '/^\.Sh DEBUG LINES/,/^\.Sh ENVIRONMENT/s/^\.It Cm //p' \
	"$WEFT_SRC/fabric/man/weft.1" >"$TMP/says"
diff "$TMP/has" "$TMP/says" || fail "the areas that there are (<) and those of weft.1 (>) differ"

start_donor --memory r=8M
! grep 'debug:' "$DONOR_LOG" || fail "debug lines without --debug"
weft status --debug=base >"$TMP/out" 2>"$TMP/err"
line='^weft-status: debug: \[ *[0-9]+\.[0-9]{6}\] base: serve-.*\.sock is asked: \{"op":"status"\}$'
grep -qE "$line" "$TMP/err" || fail "$(<"$TMP/err")"
! grep -v '^weft-status: debug: \[.*\] base: ' "$TMP/err" || fail "another area"
WEFT_DEBUG=nothing,base weft status >"$TMP/again" 2>"$TMP/err"
grep -qE "$line" "$TMP/err" || fail "$(<"$TMP/err")"
weft status >"$TMP/out" 2>"$TMP/err"
[[ ! -s $TMP/err ]] || fail "$(<"$TMP/err")"
