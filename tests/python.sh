# SPDX-License-Identifier: MIT
# What tests of the Python module share.  Source it after lib.sh.  Skips where the build has none.
# shellcheck shell=bash

[[ -s $WEFT_BUILD/python/interpreter ]] || skip "the build has no Python module: no python3-dev"
PYTHON=$(<"$WEFT_BUILD/python/interpreter")
export PYTHONPATH=$WEFT_BUILD/python:$WEFT_SRC/tests/python PYTHONDONTWRITEBYTECODE=1
# An interpreter that knows nothing of sanitizers has to have their library first; what it does not
# give back at its end is its own, and a test expects SIGBUS.
case $WEFT_PRESET in
asan) preload=$(gcc -print-file-name=libasan.so) ;;
tsan) skip "the interpreter is not built with this sanitizer" ;;
*) preload= ;;
esac
export ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0:handle_sigbus=0

# python ARGUMENT…: the interpreter that the module was built for; what is not closed is told.
python() { env ${preload:+"LD_PRELOAD=$preload"} "$PYTHON" -X dev "$@"; }
