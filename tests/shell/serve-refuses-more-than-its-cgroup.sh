# More memory than the group's limit allows is refused, with the group's name, rather than killed half-way; cgroups of either version.
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"

# Below our own group, wherever that is.
read -r mount _ < <(awk '$(NF-2) == "cgroup" && $NF ~ /(^|,)memory(,|$)/ {print $5; exit}' /proc/self/mountinfo) || mount=
group=$(sed -n 's/^[0-9]*:[^:]*\bmemory\b[^:]*://p' /proc/self/cgroup) limit=memory.limit_in_bytes
if [[ ! $mount ]]; then
	read -r mount _ < <(awk '$(NF-2) == "cgroup2" {print $5; exit}' /proc/self/mountinfo) || skip "no cgroups here"
	group=$(sed -n 's/^0:://p' /proc/self/cgroup) limit=memory.max
fi
dir=$mount${group%/}/weft-test-$$
mkdir "$dir" 2>/dev/null || skip "cannot make a group below $mount$group"
tidy() {
	kill "$(<"$TMP/pid")"
	wait_for rmdir "$dir"
}
cleanup_add tidy
[[ -w $dir/$limit ]] || skip "no limit can be set in $dir"
echo 67108864 >"$dir/$limit" || skip "no limit can be set in $dir"

serve() {
	bash -c "echo \$\$ | tee '$dir/cgroup.procs' >'$TMP/pid' && exec weft-serve --listen 127.0.0.1:0 $*"
}
! serve --memory r=128M >"$TMP/log" 2>&1 || fail "128 MiB in a group of 64 MiB"
grep -q "128 MiB wanted, but only .* can be had (the memory limit of cgroup .*/weft-test-$$)" "$TMP/log" || fail "$(cat "$TMP/log")"
serve --memory r=32M >"$TMP/log" 2>&1 &
wait_for grep -qx ready "$TMP/log"
