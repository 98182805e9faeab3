# SPDX-License-Identifier: MIT
# A line gives its command's exit status, hands on SIGTERM, and leaves nothing when it ends, however
# that is.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line

status=0
weft line -- sh -c 'exit 7' || status=$?
[[ $status = 7 ]] || fail "exit status $status, not the command's"
status=0
weft line -- sh -c 'kill -KILL $$' || status=$?
[[ $status = 137 ]] || fail "exit status $status after SIGKILL"
status=0
weft line no-such-command 2>"$TMP/err" || status=$?
[[ $status = 127 ]] && grep -q '^weft-line: cannot run no-such-command: ' "$TMP/err" ||
	fail "$status: $(cat "$TMP/err")"
[[ $(echo words | weft line cat) = words ]] || fail "the command does not have our standard input"
# shellcheck disable=SC2016 # the command's shell expands it
said=$(weft line sh -c 'echo $WEFT_LINE_NEAR_IP $WEFT_LINE_FAR_IP' -- --delay)
[[ $said = "198.18.0.1 198.18.0.2" ]] || fail "the addresses are $said"

! weft line >/dev/full 2>"$TMP/err" || fail "a line whose ends nobody can learn"
grep -q '^weft-line: cannot write the output: ' "$TMP/err" || fail "$(cat "$TMP/err")"

# Of a line that is used: its inodes are those of the namespaces.
start() { # COMMAND…: sets pid, and near and far
	rm -f "$TMP/inodes"
	# shellcheck disable=SC2016
	weft line sh -c 'stat -Lc %i "$WEFT_LINE_NEAR" "$WEFT_LINE_FAR" >"$0.new"
		mv "$0.new" "$0" && exec "$@"' "$TMP/inodes" "$@" &
	pid=$!
	wait_for test -e "$TMP/inodes"
	mapfile -t inodes <"$TMP/inodes"
}
used() { # whether a process is in one of the namespaces
	local ns
	for ns in /proc/[0-9]*/ns/net; do
		case $(stat -Lc %i "$ns" 2>/dev/null) in "${inodes[0]}" | \
			"${inodes[1]}") return 0 ;; esac
	done
	return 1
}
unused() { ! used; }
start sleep 60
used || fail "nobody is in the namespaces of a line"
kill "$pid"
status=0
wait "$pid" || status=$?
[[ $status = 143 ]] || fail "exit status $status: the command did not get SIGTERM"
wait_for unused

# Its command is told as well when a line is killed.
start sleep 60
kill -KILL "$pid"
wait "$pid" 2>/dev/null || :
wait_for unused

# Without a command: it says where the ends are, and lasts until it is told.
weft line --delay 1ms --stats "$TMP/stats" >"$TMP/ends" &
pid=$!
wait_for grep -qx ready "$TMP/ends"
read -r _ _ _ far < <(grep '^far' "$TMP/ends")
read -r _ _ _ near < <(grep '^near' "$TMP/ends")
nsenter --net="$far" ip address show dev line0 2>/dev/null | grep -q 'inet 198.18.0.2' ||
	nsenter --net="$far" grep -q line0 /proc/net/dev || fail "no device at the far end"
connect='import socket; socket.create_connection(("198.18.0.2", 1), 5)'
! nsenter --net="$near" python3 -c "$connect" 2>"$TMP/err" || fail "connected"
grep -q ConnectionRefusedError "$TMP/err" || fail "no answer: $(cat "$TMP/err")"
kill "$pid"
wait "$pid" || fail "exit status $? after SIGTERM"
[[ -s $TMP/stats ]] || fail "no figures"
