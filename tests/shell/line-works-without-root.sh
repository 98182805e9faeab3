# SPDX-License-Identifier: MIT
# Who is not root has a line all the same, where user namespaces and /dev/net/tun are for everybody.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
need_tool setpriv mknod
[[ $EUID = 0 ]] || skip "run by root it becomes nobody; the other tests show the rest"

# A device that everybody may use, in this test's own view of the file system.
export AS_NOBODY="setpriv --reuid=65534 --regid=65534 --clear-groups"
chmod 755 "$TMP"
status=0
# shellcheck disable=SC2016 # that shell expands it
unshare --mount bash \
	-c 'mknod -m 666 "$TMP/tun" c 10 200 && mount --bind "$TMP/tun" /dev/net/tun || exit 77
	$AS_NOBODY unshare --user --map-root-user --net true || exit 78
	$AS_NOBODY test -x "$WEFT_BIN/weft-line" || exit 79
	$AS_NOBODY weft line id -u >"$TMP/id"
	exec $AS_NOBODY weft line --delay 2ms \
		python3 "$WEFT_SRC/tests/support/line-probe.py" rtt 10' >"$TMP/rtt" 2>"$TMP/err" || status=$?
case $status in
77) skip "no device can be made here: $(cat "$TMP/err")" ;;
78) skip "others than root cannot make a user namespace here: $(cat "$TMP/err")" ;;
79) skip "others than root cannot read $WEFT_BIN" ;;
esac
[[ $(<"$TMP/id") = 65534 ]] || fail "the command is user $(<"$TMP/id")"
[[ $status = 0 && $(sort -n "$TMP/rtt" | head -n 1) -ge 4000 ]] ||
	fail "$status: $(cat "$TMP/err" "$TMP/rtt")"
