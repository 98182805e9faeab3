# SPDX-License-Identifier: MIT
# Machines of different byte order use each other: a donor of s390x and a bridge of ours, then the
# other way round.  The programs of s390x are those of the preset of that name, and run under
# qemu-user.
# tier: long
# presets: dev only
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdinfo nbdcopy jq qemu-s390x
s390x=$WEFT_SRC/build/s390x/bin sysroot=$WEFT_SRC/build/cross/s390x
[[ -x $s390x/weft-serve && -x $s390x/weft-attach ]] ||
	skip "s390x is not built: tests/run --long --preset s390x"

of_s390x() { # COMMAND ARGUMENT…
	qemu-s390x -L "$sysroot" "$s390x/$1" "${@:2}"
}
random_file "$TMP/image" 16M
nbd="nbd+unix:///?socket=$TMP/s"

# write_and_compare REGION: through the bridge's socket, and what is at the donor then.
write_and_compare() {
	nbdcopy --connections=2 --flush "$TMP/image" "$nbd"
	nbdcopy "$nbd" "$TMP/back"
	cmp "$TMP/image" "$TMP/back"
	weft list --json "$URI" |
		jq -e --arg name "$1" '[.. | .name? // empty] | index($name)' >/dev/null ||
		fail "weft list does not show $1: $(weft list --json "$URI")"
}

# A donor of s390x, which has no holder: qemu-user does not start another program.
mkdir "$TMP/bin"
cat >"$TMP/bin/weft-serve" <<END
#!/bin/sh
exec qemu-s390x -L "$sysroot" "$s390x/weft-serve" "\$@"
END
chmod +x "$TMP/bin/weft-serve"
PATH=$TMP/bin:$PATH start_donor --memory big=16M
weft attach "$URI" --socket "$TMP/s" --name ours
write_and_compare big
# The same generations and epoch are understood by a bridge that takes over.
pid=$(weft status --json ours | jq '[.. | .pid? // empty][0]')
kill -KILL "$pid"
wait_for gone "$pid"
weft attach "$URI" --socket "$TMP/s" --name ours
nbdcopy "$nbd" "$TMP/back"
cmp "$TMP/image" "$TMP/back"
weft detach ours
stop_donor

# A bridge of s390x.
start_donor --memory little=16M
of_s390x weft-attach "$URI" --socket "$TMP/s" --name theirs --cache 4M
write_and_compare little
! nbdcopy "${URI/weft:/nbd:}" "$TMP/back" 2>"$TMP/refused" ||
	fail "a stock client was let in beside a writer"
weft detach theirs
nbdcopy "${URI/weft:/nbd:}" "$TMP/back"
cmp "$TMP/image" "$TMP/back"
