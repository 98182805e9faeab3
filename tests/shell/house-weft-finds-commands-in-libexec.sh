# SPDX-License-Identifier: MIT
# `weft X` runs weft-X from beside itself, else from ../libexec/weft, also through a link.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

mkdir -p "$TMP/p/bin" "$TMP/p/libexec/weft" "$TMP/links"
cp "$WEFT_BIN/weft" "$TMP/p/bin/"
ln -s "$TMP/p/bin/weft" "$TMP/links/weft"
printf '#!/bin/sh\necho "libexec $*"\n' >"$TMP/p/libexec/weft/weft-probe"
chmod +x "$TMP/p/libexec/weft/weft-probe"
[[ $("$TMP/links/weft" probe one two) = "libexec one two" ]] || fail "not found in libexec"
printf '#!/bin/sh\necho "beside $*"\n' >"$TMP/p/bin/weft-probe"
chmod +x "$TMP/p/bin/weft-probe"
[[ $("$TMP/links/weft" probe one) = "beside one" ]] || fail "not found beside weft"
