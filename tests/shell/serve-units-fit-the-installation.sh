# SPDX-License-Identifier: MIT
# The systemd units name the program where it was installed, and systemd takes them.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

cmake --install "$WEFT_BUILD" --prefix "$TMP/prefix" >/dev/null
unit=$TMP/prefix/lib/systemd/system/weft-serve.service
program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
[[ $program = "$TMP/prefix/"* && -x $program ]] || fail "ExecStart=$program"
[[ -x ${program%/*}/weftholder ]] || fail "no weftholder beside it"
[[ -s $(sed -n 's/.*(an example: \(.*\)).*/\1/p' "$unit") ]] || fail "no example of a configuration"
[[ -s ${unit%.service}.socket ]] || fail "no socket unit"
if command -v systemd-analyze >/dev/null; then
	systemd-analyze verify --man=no "$unit" "${unit%.service}.socket" 2>"$TMP/log" ||
		fail "$(cat "$TMP/log")"
	# The unit is a sandbox: systemd's measure of what it leaves open, of 100.
	systemd-analyze security --offline=true --threshold=35 "$unit" >"$TMP/log" 2>&1 ||
		fail "$(grep -v ✓ "$TMP/log")"
fi
# The manual names them, and what they read.
for file in "$TMP/prefix"/lib/systemd/system/weft-serve.* "$(sed -n 's/^EnvironmentFile=//p' "$unit")"; do
	[[ $file = "$TMP"/* ]] && file=${file##*/}
	grep -q "Pa .*$file" "$TMP/prefix/share/man/man1/weft-serve.1" ||
		fail "weft-serve(1) does not name $file"
done
