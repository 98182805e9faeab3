# SPDX-License-Identifier: MIT
# Who may not open /dev/userfaultfd is told what works all the same, and the rule for udev that
# gives the device to a group.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

need_tool setpriv
[[ -c /dev/userfaultfd && $(cat /proc/sys/vm/unprivileged_userfaultfd) == 0 ]] ||
	skip "everybody may have page faults here, or there is no /dev/userfaultfd"
[[ $EUID == 0 ]] || skip "needs root, to be another user"

weft doctor >"$TMP/out" || :
grep '^ok  *userfaultfd ' "$TMP/out" || fail "root: $(cat "$TMP/out")"

chmod 755 "$TMP"
setpriv --reuid 65534 --regid 65534 --clear-groups "$(command -v weft)" doctor >"$TMP/out" || :
grep -A 2 '^warn *userfaultfd ' "$TMP/out" >"$TMP/found" || fail "$(cat "$TMP/out")"
grep -q 'system calls get EFAULT' "$TMP/found" || fail "$(cat "$TMP/found")"
grep -q 'fix (as root): groupadd -f weft && chgrp weft /dev/userfaultfd' "$TMP/found" ||
	fail "$(cat "$TMP/found")"
rule=$(sed -n "s/.*echo '\(.*\)' > .etc.udev.rules.d.*/\1/p" "$TMP/found")
[[ $rule == 'KERNEL=="userfaultfd", GROUP="weft", MODE="0660"' ]] || fail "rule: $rule"
