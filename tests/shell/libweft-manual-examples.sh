# SPDX-License-Identifier: MIT
# The programs that libweft(3) shows are built as they stand there, and do what it says.
# presets: dev only
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/libweft.sh"
need_tool python3

# program NUMBER: of those of the manual, each from its first #include to its end.
program() {
	awk -v wanted="$1" '
		/^\.Bd -literal/ { inside = 1; next }
		/^\.Ed/ { inside = 0; is_program = 0; next }
		inside && /^#include/ && !is_program { is_program = 1; nr++ }
		is_program && nr == wanted { gsub(/\\e/, "\\"); print }
	' "$WEFT_SRC/fabric/man/libweft.3"
}
for nr in 1 2; do
	program "$nr" >"$TMP/example-$nr.c"
	[[ -s $TMP/example-$nr.c ]] || fail "the manual has no program $nr"
	gcc -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter \
		-I"$WEFT_SRC/nbd-bridge/library" "$TMP/example-$nr.c" \
		-o "$TMP/example-$nr" -L"$WEFT_BUILD/lib" -lweft
done
[[ -z $(program 3) ]] || fail "the manual has a program that nobody tries"
export LD_LIBRARY_PATH=$WEFT_BUILD/lib

start_donor --memory a=5M --memory b=5M --memory c=5M
base=${URI%/*}
said=$("$TMP/example-1" "$base/a")
[[ $said = "hello, weft" ]] || fail "the first program says: $said"
# The bytes of "hello, weft", and zeros.
said=$("$TMP/example-2" "$base/a")
[[ $said = 1046 ]] || fail "the second program says: $said"
# A striped device; two regions of one donor will do.
opens "$base/b" "$base/c"
says ok write 1 0 10000000
closes
right=$(python3 -c 'print(sum(((i // 512 + 1) * 3 + i % 251) % 256 for i in range(10000000)))')
# Once the donor has heard of the goodbye.
reads_all() { said=$("$TMP/example-2" "$base/b" "$base/c"); }
wait_for reads_all
[[ $said = "$right" ]] || fail "the second program says of two regions: $said, not $right"
