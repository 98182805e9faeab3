# SPDX-License-Identifier: MIT
# A mistyped command is an error that names the nearest one.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

status=0
weft atach >"$TMP/out" 2>"$TMP/err" || status=$?
[[ $status = 2 ]] || fail "exit status $status"
[[ ! -s $TMP/out ]] || fail "an error belongs on standard error"
grep -q "Did you mean 'weft attach'?" "$TMP/err" || fail "$(cat "$TMP/err")"
weft ../bin/weft 2>"$TMP/err" && fail "ran a path"
grep -q "there is no command" "$TMP/err" || fail "$(cat "$TMP/err")"
