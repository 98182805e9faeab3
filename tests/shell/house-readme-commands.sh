# Every `weft COMMAND --option` that the documents show exists, and so does every script that they name.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

cd "$WEFT_SRC"
documents=(README.md fabric/ARCHITECTURE.md)
while read -r script; do
	[[ -x $script ]] || fail "the documents name $script, which cannot be run"
done < <(grep -ohE '\./[a-z][a-z/-]*' "${documents[@]}" | sort -u)
nr=0
while read -r _ command rest; do
	weft "$command" --help >"$TMP/help" 2>&1 || fail "the documents show 'weft $command $rest'"
	for word in $rest; do
		[[ $word =~ ^(--[a-z-]+) ]] || continue
		grep -qE -- "${BASH_REMATCH[1]}([^a-z-]|$)" "$TMP/help" || fail "'weft $command $rest': it has no ${BASH_REMATCH[1]}"
		nr=$((nr + 1))
	done
done < <(grep -ohE '\bweft (serve|list|attach|detach|status|bench|doctor|rescue|reset)( [^`;|#)]*)?' "${documents[@]}" | sort -u)
((nr >= 3)) || fail "found only $nr options"
