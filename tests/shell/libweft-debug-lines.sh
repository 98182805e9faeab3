# SPDX-License-Identifier: MIT
# $WEFT_DEBUG turns debug lines of libweft on, in any program; without it there is none.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3
case $WEFT_PRESET in
asan | tsan) skip "python3 cannot load a library of the $WEFT_PRESET preset" ;;
esac

cat >"$TMP/open.py" <<'INNER'
import ctypes, os, sys

lib = ctypes.CDLL(os.environ["LIBWEFT"])
handle = ctypes.c_void_p()
why = ctypes.create_string_buffer(256)
if lib.weft_open(os.environ["URI"].encode(), 0, ctypes.byref(handle), why, len(why)) < 0:
    sys.exit(why.value.decode())
lib.weft_close(handle)
INNER
LIBWEFT=$(compgen -G "$WEFT_BUILD/lib/libweft.so" | head -n 1)
export LIBWEFT
start_donor --memory r=8M
python3 "$TMP/open.py" 2>"$TMP/err" || fail "$(<"$TMP/err")"
[[ ! -s $TMP/err ]] || fail "$(<"$TMP/err")"
WEFT_DEBUG="link" python3 "$TMP/open.py" 2>"$TMP/err" || fail "$(<"$TMP/err")"
grep -q '^weft: debug: \[.*\] link: connecting to 127\.0\.0\.1 port ' "$TMP/err" ||
	fail "$(<"$TMP/err")"
grep -q 'link: connect: generation 1\.0, way 0$' "$TMP/err" ||
	fail "a number without a name: $(<"$TMP/err")"
! grep -v '\] link: ' "$TMP/err" || fail "another area"
