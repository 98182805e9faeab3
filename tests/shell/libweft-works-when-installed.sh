# SPDX-License-Identifier: MIT
# A program that knows only pkg-config and <weft.h> builds against the installed tree and uses a
# donor.
# presets: dev only
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"

prefix=$TMP/prefix
cmake --install "$WEFT_BUILD" --prefix "$prefix" >/dev/null
pc=$(find "$prefix" -name weft.pc)
[[ -n $pc ]] || fail "no weft.pc was installed"
export PKG_CONFIG_PATH=${pc%/*}
read -ra cflags < <(pkg-config --cflags weft)
read -ra libs < <(pkg-config --libs weft)
libdir=$(pkg-config --variable=libdir weft)

cat >"$TMP/use.c" <<-'C'
	#include <err.h>
	#include <stdio.h>
	#include <string.h>
	#include <weft.h>

	int main(int argc, char **argv)
	{
		char why[256], text[12] = "";
		struct weft *w;

		if (weft_open(argv[1], 0, &w, why, sizeof(why)) < 0)
			errx(1, "%s", why);
		if (weft_pwrite(w, "hello, weft", 12, weft_size(w) - 12) < 0 || weft_flush(w) < 0 ||
			weft_pread(w, text, 12, weft_size(w) - 12) < 0)
			errx(1, "it does not work");
		weft_close(w);
		puts(text);
		return argc != 2 || strcmp(text, "hello, weft") != 0;
	}
C
gcc -std=c11 -pedantic -Wall -Wextra -Werror "${cflags[@]}" "$TMP/use.c" -o "$TMP/use" "${libs[@]}"
cp "$TMP/use.c" "$TMP/use.cc"
g++ -Wall -Wextra -Werror "${cflags[@]}" "$TMP/use.cc" -o "$TMP/use++" "${libs[@]}"

# Nothing but the API is visible.
exported=$(nm -D --defined-only "$libdir/libweft.so" | awk '$2 == "T" {print $3}' | sed 's/@.*//' | sort | xargs)
api="weft_aio_fd weft_aio_flush weft_aio_in_flight weft_aio_next weft_aio_poll weft_aio_pread weft_aio_pwrite weft_aio_result"
api+=" weft_aio_wait weft_close weft_flush weft_map weft_map_addr weft_map_advise weft_map_dirty"
api+=" weft_map_evict weft_map_prefetch weft_map_rescue weft_map_reset weft_map_stats weft_map_sync"
api+=" weft_mark weft_mark_look"
api+=" weft_open weft_open_regions weft_pread weft_pwrite weft_size weft_transport weft_unmap"
[[ $exported == "$api" ]] ||
	fail "libweft.so exports: $exported"

start_donor --memory scratch=1M
for program in use use++; do
	out=$(LD_LIBRARY_PATH=$libdir "$TMP/$program" "$URI")
	[[ $out == "hello, weft" ]] || fail "$program says: $out"
done
if LD_LIBRARY_PATH=$libdir "$TMP/use" "${URI}x" 2>"$TMP/err"; then
	fail "it opened a region that is not there"
fi
grep -q "scratchx" "$TMP/err" || fail "it says nothing of the region: $(cat "$TMP/err")"
