# SPDX-License-Identifier: MIT
# After a detach nothing of the attachment is left in the run directory, with a socket and with a
# file.
# presets: dev release
. "${BASH_SOURCE[0]%/*}/../lib.sh"

start_donor --memory r=16M
fronts=("--socket $TMP/s")
[[ ! -c /dev/fuse ]] || fronts+=("--mount $TMP/f" "--mount $TMP/f --socket $TMP/s")
for front in "${fronts[@]}"; do
	# shellcheck disable=SC2086 # words
	weft attach "$URI" $front >"$TMP/out" || fail "$(cat "$TMP/out")"
	weft detach r || fail "weft detach: $?"
	left=$(find "$WEFT_RUN_DIR" -name "attach-*")
	[[ -z $left ]] || fail "after $front this is left: $left"
	[[ ! -e $TMP/s && ! -e $TMP/f ]] || fail "after $front the front-end is left"
done
