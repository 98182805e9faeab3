# SPDX-License-Identifier: MIT
# tier: long
# timeout: 300
# processors: 2
# A guest that does not end is killed when its time is up, one that crashes is reported with its
# console, and nothing is left of either.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

emulators() {
	local pid
	for pid in $(our_processes); do
		[[ $(readlink "/proc/$pid/exe") != *qemu* ]] || echo "$pid"
	done
}

"$WEFT_SRC/tests/testbed/run" --nodes 2 --timeout 45 -- bash \
	-c 'trap "" TERM; echo started; sleep 1000' >"$TMP/output" 2>"$TMP/errors" &
pid=$!
wait_for -t 44 grep -q started "$TMP/output"
[[ $(emulators | wc -l) = 2 ]] || fail "emulators: $(emulators)"
status=0
wait "$pid" || status=$?
[[ $status = 124 ]] || fail "exit status $status: $(cat "$TMP/errors")"
grep -q 'time is up' "$TMP/errors" || fail "$(cat "$TMP/errors")"
[[ -z $(emulators) ]] || fail "emulators are left: $(emulators)"
[[ ! -e $WEFT_SRC/build/testbed/run.$pid ]] || fail "its folder is left"

status=0
"$WEFT_SRC/tests/testbed/run" -- bash -c 'echo c >/proc/sysrq-trigger; sleep 10' 2>"$TMP/errors" ||
	status=$?
[[ $status = 125 ]] || fail "exit status $status: $(cat "$TMP/errors")"
grep -q 'Kernel panic.*sysrq' "$TMP/errors" || fail "$(cat "$TMP/errors")"
[[ -z $(emulators) ]] || fail "emulators are left: $(emulators)"
