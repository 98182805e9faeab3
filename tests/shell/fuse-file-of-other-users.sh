# SPDX-License-Identifier: MIT
# Who may open the file of --mount: the user who mounts it, and with --allow-other those whom its
# owner and mode let in.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse && $EUID = 0 ]] || skip "needs /dev/fuse and root"
need_tool setpriv

start_donor --memory r=1M
# A place that others reach: $TMP lies in a directory that they do not.
place=$(mktemp -d /tmp/weft-others.XXXXXX)
cleanup_add "umount $place/f 2>/dev/null; rm -f $place/f; rmdir $place"
chmod 711 "$place"
as() { # UID COMMAND…
	setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"
}
attach() {
	weft attach "$URI" --mount "$place/f" "$@" >"$TMP/out" 2>&1 || fail "$*: $(cat "$TMP/out")"
}
reads() { as "$1" head -c 1 "$place/f" >/dev/null 2>&1; }
writes() {
	as "$1" dd if=/dev/zero of="$place/f" bs=512 count=1 conv=notrunc status=none 2>/dev/null
}
is() { # MODE UID GID
	[[ $(stat -c '%a %u %g' "$place/f") = "$*" ]] ||
		fail "the file is $(stat -c '%a %u %g' "$place/f"), not $*"
}

attach
is 600 0 0
! reads 1234 || fail "everybody reads it"
weft detach r >/dev/null

attach --allow-other
is 666 0 0
writes 1234 || fail "--allow-other lets nobody in"
weft detach r >/dev/null

attach --allow-other --owner 1234
is 600 1234 0
[[ $(getent passwd 1234) ]] || { reads 1234 && writes 1234; } || fail "its owner cannot use it"
! reads 1235 || fail "others than its owner read it"
weft detach r >/dev/null

attach --allow-other --owner nobody:1234 --mode 0640
is 640 "$(id -u nobody)" 1234
{ reads 1234 && ! writes 1234; } || fail "its group may read and not write"
! reads 1235 || fail "others read it"
weft detach r >/dev/null

attach --allow-other --mode 0666 --read-only
is 444 0 0
weft detach r >/dev/null

wrong() { # TEXT ARGUMENT…
	local status=0
	weft attach "$URI" "${@:2}" >"$TMP/out" 2>&1 || status=$?
	[[ $status = 2 && $(cat "$TMP/out") = *"$1"* ]] ||
		fail "${*:2}: exit status $status: $(cat "$TMP/out")"
}
wrong "--owner: there is no user 'nobody-of-that-name'" --mount "$place/f" --allow-other \
	--owner nobody-of-that-name
wrong "--owner: there is no group 'none-of-that-name'" --mount "$place/f" --allow-other \
	--owner nobody:none-of-that-name
wrong "--mode wants an octal number" --mount "$place/f" --mode 9
wrong "--mode wants an octal number" --mount "$place/f" --mode 07777
wrong "let nobody else in without --allow-other" --mount "$place/f" --owner 1234
wrong "let nobody else in without --allow-other" --mount "$place/f" --mode 0644
wrong "are for the file of --mount" --socket "$TMP/s" --mode 0600
