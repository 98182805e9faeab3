# SPDX-License-Identifier: MIT
# What the documents show exists: each `weft COMMAND --option`, each script and file that they name,
# presets, and tests that ctest is asked for.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

cd "$WEFT_SRC"
documents=(README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md fabric/ARCHITECTURE.md)
while read -r script; do
	[[ -x $script ]] || fail "the documents name $script, which cannot be run"
done < <(grep -ohE '\./[a-z][a-z/-]*' "${documents[@]}" | sort -u)
nr=0
while read -r _ command rest; do
	weft "$command" --help >"$TMP/help" 2>&1 || fail "the documents show 'weft $command $rest'"
	for word in $rest; do
		[[ $word =~ ^(--[a-z-]+) ]] || continue
		grep -qE -- "${BASH_REMATCH[1]}([^a-z-]|$)" "$TMP/help" ||
			fail "'weft $command $rest': it has no ${BASH_REMATCH[1]}"
		nr=$((nr + 1))
	done
done < <(grep -ohE '\bweft (serve|list|attach|detach|status|bench|doctor|rescue|reset|key|move|swap)( [^`;|#)]*)?' "${documents[@]}" | sort -u)
((nr >= 3)) || fail "found only $nr options"

# A path, unless it has a star, a brace or a word in capitals, which stand for something.
nr=0
while read -r path; do
	[[ $path != *[*\{X]* && ! $path =~ [A-Z]{3} || $path =~ \.md$ ]] || continue
	[[ -e ${path%.} ]] || fail "the documents name $path, which there is not"
	nr=$((nr + 1))
done < <(grep -ohP '(?<![\w./-])(fabric|transports|nbd-bridge|tests|perf)/[\w.*{/-]*|\b[A-Z]+\.md\b' "${documents[@]}" | sort -u)
((nr >= 20)) || fail "found only $nr paths"
while read -r _ preset; do
	grep -q "\"name\": \"$preset\"" CMakePresets.json || tests/run --help |
		grep -qwF -- "$preset" ||
		fail "the documents show the preset '$preset'"
done < <(grep -ohE -- '--preset [a-z0-9-]+' "${documents[@]}" | sort -u)
nr=0
while read -r option value; do
	ctest --test-dir "$WEFT_BUILD" -C long "$option" "$value" -N >"$TMP/list"
	! grep -q '^Total Tests: 0$' "$TMP/list" ||
		fail "the documents show ctest $option $value, and there is no such test"
	nr=$((nr + 1))
done < <(grep -hE '\bctest ' "${documents[@]}" | grep -ohE -- '-[RL] [a-z=]+' | sort -u)
((nr >= 3)) || fail "found only $nr tests that ctest is asked for"
