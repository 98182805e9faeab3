# SPDX-License-Identifier: MIT
# A file in a file system without extended attributes has no mark: who held it when its donor was
# killed is in a file beside the donor's own, and nobody else is granted it before that lease is
# over. A file whose attributes have no room for the mark is granted to nobody, with the reason.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"
need_tool python3

mkdir "$TMP/ramfs"
mount -t ramfs none "$TMP/ramfs" 2>/dev/null || skip "ramfs cannot be mounted"
cleanup_add "umount -l '$TMP/ramfs'"
truncate -s 8M "$TMP/ramfs/region" "$TMP/region"
start_donor --file "r=$TMP/ramfs/region" --lease 5
weft attach "$URI" --socket "$TMP/s" --cache 8M --dead-timeout 60 >/dev/null || fail "attach"
writes 0x41 0 4096 "nbd+unix:///?socket=$TMP/s" || fail "$(cat "$TMP/io")"
leases=("$WEFT_RUN_DIR"/leases-*)
stop_donor KILL || :
start_donor --file "r=$TMP/ramfs/region" --lease 1
! writes 0x42 0 4096 "nbd://127.0.0.1:$PORT/r" || fail "it is granted at once"
grep -q 'may still answer from what it remembers; it is free in' "$TMP/io" ||
	fail "it does not say why: $(cat "$TMP/io")"
wait_for -t 30 writes 0x42 0 4096 "nbd://127.0.0.1:$PORT/r"
weft detach --force r >/dev/null 2>&1 || :
stop_donor || fail "the donor's exit status: $?"
# Nobody held it: nobody is waited for.
start_donor --file "r=$TMP/ramfs/region" --lease 20
writes 0x43 0 4096 "nbd://127.0.0.1:$PORT/r" || fail "it waits for nobody: $(cat "$TMP/io")"
stop_donor || fail "the donor's exit status: $?"

# What is damaged may have named anybody; what cannot be opened as a file does not keep the donor
# waiting.
: >"${leases[0]}"
start_donor --file "r=$TMP/ramfs/region" --lease 20
! writes 0x44 0 4096 "nbd://127.0.0.1:$PORT/r" ||
	fail "it is granted although nobody knows who held it"
grep -q "region 'r': ${leases[0]} is damaged: .* nobody is granted the region in the first 20 s" \
	"$DONOR_LOG" || fail "it does not say why: $(cat "$DONOR_LOG")"
stop_donor || fail "the donor's exit status: $?"
rm -f "${leases[0]}"
mkfifo "${leases[0]}"
start_donor --file "r=$TMP/ramfs/region" --lease 20
stop_donor || fail "the donor's exit status: $?"
rm -f "${leases[0]}"
ln -s /dev/null "${leases[0]}"
start_donor --file "r=$TMP/ramfs/region" --lease 20
grep -q "region 'r': ${leases[0]} cannot be read (Too many levels of symbolic links): " \
	"$DONOR_LOG" || fail "it does not say why: $(cat "$DONOR_LOG")"
stop_donor || fail "the donor's exit status: $?"

python3 - "$TMP/region" <<'end' || skip "this file system has room for larger attributes"
import os, sys
try:
	os.setxattr(sys.argv[1], "user.big", b"x" * 3850)
	os.setxattr(sys.argv[1], "user.more", b"x" * 250)
except OSError:
	sys.exit(0)
sys.exit(1)
end
start_donor --file "r=$TMP/region"
! weft attach "$URI" --socket "$TMP/s" >"$TMP/out" 2>&1 || fail "it is granted without a mark"
grep -q "cannot be noted in its file's attributes: No space left on device" "$TMP/out" ||
	fail "it does not say why: $(cat "$TMP/out")"
