# A kernel module that could be loaded is a warning with the modprobe line; one that is not there at all is
# missing, and the fix names the package.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

fact() { # PATH CONTENT
	mkdir -p "$TMP/root/${1%/*}"
	echo "$2" >"$TMP/root/$1"
}
fact proc/sys/kernel/osrelease 6.1.0-1-cloud-amd64
fact proc/meminfo 'MemAvailable: 1048576 kB'
fact lib/modules/6.1.0-1-cloud-amd64/modules.dep 'kernel/drivers/block/nbd.ko:'
weft doctor --sysroot "$TMP/root" >"$TMP/out" || fail "exit status $?: $(cat "$TMP/out")"
grep -A 1 '^warn  *nbd ' "$TMP/out" | grep -q 'fix: modprobe nbd$' || fail "$(cat "$TMP/out")"
grep -A 1 '^missing *ublk ' "$TMP/out" | grep -q 'fix: apt-get install linux-image-amd64' || fail "$(cat "$TMP/out")"

fact sys/module/nbd/version 1
weft doctor --sysroot "$TMP/root" | grep '^ok  *nbd ' || fail "a loaded module was not seen"

# The driver alone is not enough: what a dead bridge left must be possible to take over.
fact lib/modules/6.1.0-1-cloud-amd64/modules.dep 'kernel/drivers/block/ublk_drv.ko:'
weft doctor --sysroot "$TMP/root" >"$TMP/out"
grep '^missing *ublk ' "$TMP/out" | grep -q 'Linux 6.5 can' || fail "$(cat "$TMP/out")"
fact proc/sys/kernel/osrelease 6.12.9-amd64
fact lib/modules/6.12.9-amd64/modules.dep 'kernel/drivers/block/ublk_drv.ko:'
weft doctor --sysroot "$TMP/root" >"$TMP/out"
grep -A 1 '^warn *ublk ' "$TMP/out" | grep -q 'fix: modprobe ublk_drv$' || fail "$(cat "$TMP/out")"
