# SPDX-License-Identifier: MIT
# A run directory without room: weft swap on says so, and whatever it had begun by then is undone,
# though no note can be written any more; off needs no room.
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq
[[ $EUID = 0 ]] || skip "only root mounts a tmpfs"

start_donor --memory r=16M
mkdir "$TMP/small"
mount -t tmpfs -o size=64k,mode=700 small "$TMP/small" 2>/dev/null ||
	skip "no tmpfs can be mounted here"
cleanup_add "umount -l '$TMP/small'"
export WEFT_RUN_DIR=$TMP/small
told=
for room in 0 1 2 4 7; do
	rm -f "$TMP/small"/*
	head -c $(((16 - room) * 4096)) /dev/zero >"$TMP/small/other"
	# Where there is no driver for a device it fails in the end, whatever room there is.
	if weft swap on "$URI" --force --lanes 1 >"$TMP/out" 2>&1; then
		head -c 64K /dev/zero >"$TMP/small/more" 2>/dev/null || :
		weft swap off r >"$TMP/out" 2>&1 || fail "off: $(cat "$TMP/out")"
	else
		! grep -q "cannot write .*: No space left on device" "$TMP/out" || told+=" $room"
		grep -q 'what was begun is undone' "$TMP/out" ||
			fail "room for $room pages: $(cat "$TMP/out")"
	fi
	[[ ! $(compgen -G "$TMP/small/swap-*.json*") ]] || fail "a note is left: $(ls "$TMP/small")"
	[[ $(weft status --json | jq '.attachments | length') = 0 ]] ||
		fail "room for $room pages: $(weft status)"
done
[[ $told = " 0"* ]] || fail "it does not say why: $told; $(cat "$TMP/out")"
stop_donor
