# SPDX-License-Identifier: MIT
# The programs that weft(3) shows run as they stand there, and say what it says.
# presets: dev only
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/python.sh"

# example NUMBER: a literal part of the manual's examples, from the first on.
example() {
	awk -v wanted="$1" '
		/^\.Sh/ { here = /EXAMPLES/ }
		/^\.Ed/ { inside = 0 }
		inside && nr == wanted { gsub(/\\e/, "\\"); print }
		here && /^\.Bd -literal/ { inside = 1; nr++ }
	' "$WEFT_SRC/fabric/man/weft.3"
}
start_donor --memory r=64M
for nr in 1 3 4; do
	example "$nr" >"$TMP/example-$nr.py"
	grep -q '^import weft' "$TMP/example-$nr.py" || fail "example $nr is no program"
	# Once the donor has heard that the last one is gone.
	runs() { python "$TMP/example-$nr.py" "$URI" >"$TMP/said-$nr" 2>"$TMP/err"; }
	wait_for -t 60 runs
done
[[ -z $(example 5) ]] || fail "the manual has an example that nobody tries"
sed "s|127.0.0.1:$PORT|127.0.0.1|" "$TMP/said-1" | diff - <(example 2) ||
	fail "the first program says something else"
# The bytes of "hello, weft", and zeros.
[[ $(<"$TMP/said-3") = 1046 ]] || fail "the second program says: $(<"$TMP/said-3")"
[[ $(<"$TMP/said-4") = "67108864 1 [(9875456, 4096)]" ]] ||
	fail "the third program says: $(<"$TMP/said-4")"
