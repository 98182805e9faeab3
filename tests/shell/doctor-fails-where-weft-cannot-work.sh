# SPDX-License-Identifier: MIT
# The exit status is 1 only if something is missing that weft cannot do without.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

mkdir -p "$TMP/root/proc/sys/kernel"
echo 6.1.0-1-amd64 >"$TMP/root/proc/sys/kernel/osrelease"
! weft doctor --sysroot "$TMP/none" >"$TMP/out" 2>&1 || fail "no root at all"
[[ $(<"$TMP/out") = "weft-doctor: --sysroot $TMP/none: No such file or directory" ]] ||
	fail "$(<"$TMP/out")"
status=0
weft doctor --json --sysroot "$TMP/root" >"$TMP/out" || status=$?
[[ $status = 1 ]] || fail "exit status $status"
need_tool jq
[[ $(jq .works "$TMP/out") = false ]] || fail "$(cat "$TMP/out")"
[[ $(jq -r '.checks[] | select(.check == "memory") | .state' "$TMP/out") = missing ]] ||
	fail "$(cat "$TMP/out")"
jq -e '.checks | all(.fix != "" or .state == "ok" or .state == "n/a" or (.check | startswith("huge")))' "$TMP/out" ||
	fail "a finding without a fix"
