# SPDX-License-Identifier: MIT
# timeout: 300
# The torture (tests/torture) finds within a few rounds what was wrong in the commit of
# tests/compat/wire-0: bridges that come back after another wrote, and files that were put back.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/compat/lib.sh"
need_tool git
build_old

# find_violation WHAT TEXT…: a violation that matches WHAT, with events left out whose names have a
# TEXT
find_violation() {
	local what=$1 text without=()
	shift
	for text; do without+=(--without "$text"); done
	rm -rf "$TMP/torture" "$WEFT_RUN_DIR"/attach-*
	mkdir "$TMP/torture"
	PATH=${programs[old]}:$PATH timeout -k 5 120 "$WEFT_BUILD/tests/torture" \
		--rounds 60 "${without[@]}" "$TMP/torture" >"$TMP/out" &&
		fail "it found nothing: $(cat "$TMP/out")"
	grep -E "VIOLATION.*: $what: " "$TMP/out" || fail "it ended otherwise: $(cat "$TMP/out")"
}

# (Zeros are remembered from before the first write.)
find_violation '(S[12]|zeros)' "put back"
find_violation '(S[123]|zeros)' "others write" killed stopped
