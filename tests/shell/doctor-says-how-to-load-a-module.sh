# SPDX-License-Identifier: MIT
# A kernel module that could be loaded is a warning with the modprobe line; one that is not there at
# all is missing, and the fix names the package.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

fact() { # PATH CONTENT
	mkdir -p "$TMP/root/${1%/*}"
	echo "$2" >"$TMP/root/$1"
}
fact proc/sys/kernel/osrelease 6.1.0-1-cloud-amd64
fact proc/meminfo 'MemAvailable: 1048576 kB'
fact lib/modules/6.1.0-1-cloud-amd64/modules.dep 'kernel/drivers/block/nbd.ko:'
weft doctor --sysroot "$TMP/root" >"$TMP/out" || fail "exit status $?: $(cat "$TMP/out")"
grep -A 1 '^warn  *nbd ' "$TMP/out" | grep -q 'fix (as root): modprobe nbd$' ||
	fail "$(cat "$TMP/out")"
grep -A 1 '^missing *ublk ' "$TMP/out" |
	grep -q 'fix (as root): apt-get install -t bookworm-backports linux-image-' ||
		fail "$(cat "$TMP/out")"

fact sys/module/nbd/version 1
weft doctor --sysroot "$TMP/root" | grep '^ok  *nbd ' || fail "a loaded module was not seen"

# The driver alone is not enough: what a dead bridge left must be possible to take over.
fact lib/modules/6.1.0-1-cloud-amd64/modules.dep 'kernel/drivers/block/ublk_drv.ko:'
weft doctor --sysroot "$TMP/root" >"$TMP/out"
grep '^missing *ublk ' "$TMP/out" | grep -q 'Linux 6.5 can' || fail "$(cat "$TMP/out")"
fact proc/sys/kernel/osrelease 6.12.9-amd64
fact lib/modules/6.12.9-amd64/modules.dep 'kernel/drivers/block/ublk_drv.ko:'
weft doctor --sysroot "$TMP/root" >"$TMP/out"
grep -A 1 '^warn *ublk ' "$TMP/out" | grep -q 'fix (as root): modprobe ublk_drv$' ||
	fail "$(cat "$TMP/out")"
grep -A 2 '^warn *ublk ' "$TMP/out" |
	grep -q 'to keep that over a reboot: echo ublk_drv > /etc/modules-load.d/weft-ublk_drv.conf$' || fail "$(cat "$TMP/out")"

# What no command of this machine's can bring is said in words; what is not there to look at is
# neither well nor missing.
fact etc/os-release 'ID=fedora'
fact lib/modules/6.12.9-amd64/modules.dep ''
weft doctor --sysroot "$TMP/root" >"$TMP/out" || :
grep -A 1 '^missing *ublk ' "$TMP/out" |
	grep -q 'fix (as root): install a kernel of Linux 6.5 or later with that module' ||
		fail "$(cat "$TMP/out")"
for check in 'RDMA  ' 'RDMA address' 'RDMA MTU' 'RDMA access'; do
	grep -q "^n/a  *$check" "$TMP/out" || fail "$check: $(cat "$TMP/out")"
done
grep -A 1 '^n/a' "$TMP/out" | grep 'fix' && fail "a fix for what is not there"

# A shell takes the commands as they are.
need_tool jq
weft doctor --sysroot "$TMP/root" --json >"$TMP/json" || :
jq -r '.checks[] | select(.fix_as_root) | .fix | select(startswith("install") or startswith("allow") | not)' "$TMP/json" >"$TMP/fixes"
[[ -s $TMP/fixes ]] || fail "no commands"
while read -r line; do
	bash -n <<<"$line" || fail "no command: $line"
done <"$TMP/fixes"
