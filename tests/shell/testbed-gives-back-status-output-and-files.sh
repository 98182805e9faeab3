# SPDX-License-Identifier: MIT
# timeout: 300
# processors: 2
# What a command in the testbed leaves: its exit status, both outputs byte for byte, its files, the
# kernel's messages if asked for; nothing that it wrote elsewhere, and no emulator, although it left
# a process behind.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

head -c 3000000 /dev/urandom >"$TMP/data"
echo "before" >"$TMP/file"
status=0
cd "$TMP"
# shellcheck disable=SC2016
"$WEFT_SRC/tests/testbed/run" --kernel-log --out "$TMP/made/here" -- bash -c '
	cat data
	echo "argument: $1, in $PWD, $WEFT_PRESET" >&2
	echo after >file
	echo made >"$OUT/file"
	sleep 1000 &
	exit 7' bash 'a  b "c' >"$TMP/output" 2>"$TMP/errors" || status=$?
[[ $status = 7 ]] || fail "exit status $status: $(cat "$TMP/errors")"
cmp "$TMP/data" "$TMP/output"
grep -qxF "argument: a  b \"c, in $TMP, $WEFT_PRESET" "$TMP/errors" || fail "$(cat "$TMP/errors")"
grep -q 'Linux version 6' "$TMP/errors" || fail "no kernel log"
[[ $(<"$TMP/file") = before ]] || fail "the guest changed the host's file"
[[ $(<"$TMP/made/here/file") = made ]] || fail "no file"
mapfile -t left < <(our_processes)
for pid in "${left[@]}"; do
	[[ $pid = "$$" || ! -e /proc/$pid/exe || $(readlink "/proc/$pid/exe") != *qemu* ]] ||
		fail "an emulator is left: $pid"
done
