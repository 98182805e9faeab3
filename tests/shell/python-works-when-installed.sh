# SPDX-License-Identifier: MIT
# The Python module works from the installed tree, wherever that was moved to, and in Debian's own
# places; a build without Python's headers says so once and goes on.
# presets: dev only
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/python.sh"
unset PYTHONPATH

cmake --install "$WEFT_BUILD" --prefix "$TMP/one" >/dev/null
mv "$TMP/one" "$TMP/two"
module=$(find "$TMP/two" -path '*/weft/__init__.py')
[[ $module = "$TMP"/two/lib/python3*/*-packages/weft/__init__.py ]] || fail "the module is $module"
for file in __init__.pyi _weft.pyi py.typed; do
	[[ -e ${module%/*}/$file ]] || fail "no $file beside it"
done
site=${module%/weft/__init__.py}
cd /
start_donor --memory r=1M
said=$(PYTHONPATH=$site python -c '
import sys, weft
with weft.Region(sys.argv[1]) as region:
    region.pwrite(b"hello, weft", 0)
    print(weft.__file__, region.pread(11, 0))' "$URI")
[[ $said = "$module b'hello, weft'" ]] || fail "it says: $said"
readelf -d "$site"/weft/_weft.*.so | grep -q 'RUNPATH.*ORIGIN/' || fail "it has no way to libweft"

# configure WHAT OPTION…: configures a build of the module alone; what it says of Python.
configure() {
	cmake -S "$WEFT_SRC" -B "$TMP/$1" -DWEFT_TESTS=OFF -DWEFT_PERF=OFF "${@:2}" \
		>"$TMP/$1.log" 2>&1 || fail "$(tail "$TMP/$1.log")"
}
place() { sed -n 's/.*Python module: .* installed in //p' "$TMP/$1.log"; }
if "$PYTHON" -c 'import sysconfig, sys
sys.exit("deb_system" not in sysconfig.get_scheme_names())'; then
	configure usr -DCMAKE_INSTALL_PREFIX=/usr -DPython3_EXECUTABLE="$PYTHON"
	[[ $(place usr) = lib/python3/dist-packages ]] || fail "for /usr: $(place usr)"
	configure local -DCMAKE_INSTALL_PREFIX=/usr/local -DPython3_EXECUTABLE="$PYTHON"
	"$PYTHON" -c 'import sys; sys.exit(sys.argv[1] not in sys.path)' \
		"/usr/local/$(place local)" || fail "for /usr/local: $(place local)"
fi
configure elsewhere -DWEFT_PYTHON_DIR=my/modules -DPython3_EXECUTABLE="$PYTHON"
[[ $(place elsewhere) = my/modules ]] || fail "elsewhere: $(place elsewhere)"

mkdir "$TMP/headless"
cat >"$TMP/headless/python3" <<'SH'
#!/bin/sh
# SPDX-License-Identifier: MIT
exit 1
SH
chmod +x "$TMP/headless/python3"
configure without -DPython3_EXECUTABLE="$TMP/headless/python3"
grep -q 'No Python module: .*python3-dev' "$TMP/without.log" || fail "$(cat "$TMP/without.log")"
configure without
! grep -q 'No Python module' "$TMP/without.log" || fail "it says so again"
