# SPDX-License-Identifier: MIT
# Detaching a bridge that hangs says so, and how to kill it; --force kills it and clears what it
# left.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

start_donor --memory r=1M
mount=()
[[ ! -w /dev/fuse ]] || mount=(--mount "$TMP/file")
weft attach "$URI" --socket "$TMP/s" "${mount[@]}" >/dev/null
pid=$(weft status r --json | jq '.attachments[0].pid')
kill -STOP "$pid"
cleanup_add "kill -KILL $pid 2>/dev/null"
status=0
answer=$(timeout 30 weft detach r 2>&1) || status=$?
[[ $status = 1 && $answer = *"pid $pid, does not answer"*"weft detach --force r"* ]] ||
	fail "exit $status: $answer"
[[ -S $TMP/s ]] || fail "refused, and yet something is gone"
answer=$(timeout 30 weft detach --force r 2>&1) || fail "--force: exit $?: $answer"
[[ $answer = *"did not answer and was killed"* ]] || fail "$answer"
gone "$pid" || fail "it lives"
[[ ! -e $TMP/s && ! -e $TMP/file ]] || fail "left behind: $(ls -l "$TMP")"
! grep -q "$TMP/file" /proc/self/mountinfo || fail "the mount was left behind"
[[ -z $(compgen -G "$WEFT_RUN_DIR/attach-r.json") ]] || fail "the state was left behind"
