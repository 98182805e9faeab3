# SPDX-License-Identifier: MIT
# More memory than the group's limit allows is refused, with the group's name, rather than killed
# half-way; cgroups of either version.
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"

memory_group 67108864

serve() {
	in_memory_group weft-serve --listen 127.0.0.1:0 "$@"
}
! serve --memory r=128M >"$TMP/log" 2>&1 || fail "128 MiB in a group of 64 MiB"
grep -q "128 MiB wanted, but only .* can be had (the memory limit of cgroup .*/weft-test-$$)" \
	"$TMP/log" || fail "$(cat "$TMP/log")"
serve --memory r=32M >"$TMP/log" 2>&1 &
wait_for grep -qx ready "$TMP/log"
