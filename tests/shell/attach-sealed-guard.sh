# SPDX-License-Identifier: MIT
# The guard of sealed contents goes on while it cannot look, and a bridge that cannot take what the
# guard keeps gives nothing up.  Nor does a bridge that is killed while it ends.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq prlimit qemu-io

start_donor --memory r=8M
state() { jq ".$1" "$WEFT_RUN_DIR/attach-r.json"; }
attach() {
	weft attach "$URI" --name r --socket "$TMP/s" --encrypt --timeout 1 --dead-timeout 1 "$@"
}
io() { qemu-io -f raw -c "$1" "nbd+unix:///?socket=$TMP/s" >"$TMP/io" || fail "$(cat "$TMP/io")"; }
kill_bridge() {
	local pid
	pid=$(state pid)
	kill -KILL "$pid"
	# shellcheck disable=SC2317 # wait_for calls it
	dead() { ! kill -0 "$pid" 2>/dev/null; }
	wait_for dead
}

attach --new-contents >/dev/null || fail "attach"
io "write -P 5 0 64k"
guard=$(state guard)
kill_bridge
# No descriptor is left for it, until after it has waited for the next bridge.
prlimit --pid "$guard" --nofile=3:1024
sleep 8
kill -0 "$guard" 2>/dev/null || fail "the guard gave up what it kept"
prlimit --pid "$guard" --nofile=1024

# A bridge without the guard's capabilities may not look into it.
if [[ $(id -u) = 0 ]] && setpriv --bounding-set -all true 2>/dev/null; then
	setpriv --bounding-set -all "$WEFT_BIN/weft-attach" "$URI" --name r --socket "$TMP/s" \
		--encrypt >"$TMP/out" 2>"$TMP/err" && fail "attached"
	grep -q "from process $guard, which keeps it: Permission denied" "$TMP/err" ||
		fail "$(cat "$TMP/err")"
fi
attach >"$TMP/said" || fail "not taken over"
grep -q "taken over" "$TMP/said" || fail "$(cat "$TMP/said")"
io "read -P 5 0 64k"

# A bridge that is killed while it ends: its contents have ended, or are what they were.
if strace -qq -o /dev/null true 2>/dev/null; then
	strace -qq -o /dev/null -p "$(state pid)" -e trace=kill -e inject=kill:signal=KILL &
	# shellcheck disable=SC2317 # wait_for calls it
	is_traced() { grep -q 'TracerPid:.[1-9]' "/proc/$(state pid)/status"; }
	wait_for is_traced
	weft detach r 2>/dev/null && fail "nobody killed the bridge"
	attach >"$TMP/said" || fail "not taken over"
	io "read -P 5 0 64k"
fi
weft detach r || fail "detach"
