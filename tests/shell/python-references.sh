# SPDX-License-Identifier: MIT
# The Python module leaves no references behind: a debug interpreter, for which it is built here,
# counts them.
# presets: dev only
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3-dbg
. "$WEFT_SRC/tests/python.sh"

asks() { python3-dbg -c "import sysconfig; print(sysconfig.$1)"; }
include=$(asks "get_path('include')") suffix=$(asks "get_config_var('EXT_SUFFIX')")
[[ -s $include/Python.h ]] || skip "$include has no headers"
mkdir "$TMP/python"
cp -r "$WEFT_BUILD/python/weft" "$TMP/python"
rm "$TMP"/python/weft/*.so
gcc -std=gnu11 -O0 -shared -fPIC -D_GNU_SOURCE -DPy_DEBUG -DWEFT_VERSION='"debug"' -I"$WEFT_SRC" \
	-isystem "$include" "$WEFT_SRC"/nbd-bridge/library/python/*.c \
	-o "$TMP/python/weft/_weft$suffix" -L"$WEFT_BUILD/lib" -lweft \
	-Wl,-rpath,"$WEFT_BUILD/lib"
PYTHONPATH=$TMP/python:$WEFT_SRC/tests/python python3-dbg "$WEFT_SRC/tests/python/references.py"
