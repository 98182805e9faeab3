# SPDX-License-Identifier: MIT
# What goes wrong beside lending is said by its cause: a run directory that cannot be written,
# memory that comes in pages.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

start_donor --memory odd=5000 --memory even=8Ki
grep -q "region 'odd' has 8 KiB rather than 4.9 KiB: memory comes in whole pages" "$DONOR_LOG" ||
	fail "$(cat "$DONOR_LOG")"
! grep -q "region 'even' has" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
stop_donor

if [[ ${1:-} != inside ]]; then
	unshare --mount true 2>/dev/null || skip "no mount namespaces here"
	exec unshare --mount bash "${BASH_SOURCE[0]}" inside
fi
mkdir -m 700 "$TMP/ro"
mount -t tmpfs -o mode=700 none "$TMP/ro"
mount -o remount,ro "$TMP/ro"
cleanup_add "umount $TMP/ro"
WEFT_RUN_DIR=$TMP/ro weft-serve --memory r=1M --listen 127.0.0.1:0 >"$TMP/log" 2>&1 &
donor=$!
wait_for grep -qx ready "$TMP/log"
kill "$donor"
wait "$donor" || fail "exit status $?"
grep -q "a crash of this program would lose its memory now: its holder cannot make $TMP/ro/hold-[0-9]*.sock: Read-only file system" "$TMP/log" || fail "$(cat "$TMP/log")"
grep -q "cannot make control socket $TMP/ro/serve-.*: Read-only file system" "$TMP/log" ||
	fail "$(cat "$TMP/log")"
! grep -q 'Broken pipe' "$TMP/log" || fail "$(cat "$TMP/log")"
