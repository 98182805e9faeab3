# SPDX-License-Identifier: MIT
# fabric/quickstart ends well, and no process, mount or file is left.
# presets: release only
# timeout: 300
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"

mkdir "$TMP/tmp"
TMPDIR=$TMP/tmp "$WEFT_SRC/fabric/quickstart" >"$TMP/out" 2>&1 ||
	fail "exit status $?: $(cat "$TMP/out")"
cat "$TMP/out"
grep -q "have the hashes of their originals" "$TMP/out" || grep -q "alone" "$TMP/out" ||
	fail "no hashes were compared"
[[ -z $(ls -A "$TMP/tmp") ]] || fail "files are left: $(ls -A "$TMP/tmp")"
! grep "$TMP/tmp" /proc/self/mounts || fail "a mount is left"
