# SPDX-License-Identifier: MIT
# What tests of maps in trouble share: tests/support/map-trouble, behind a line that can be cut.
# Source it after lib.sh.
# shellcheck shell=bash

# start_line SECONDS: to the donor of $PORT; each connection lives so long; "": as long as it is
# used.  Sets $LINE_PID and $LINE, a URI by way of it.
start_line() {
	local at
	at=$(free_port)
	rm -f "$TMP/line"
	python3 "$WEFT_SRC/tests/support/relay.py" "$at" "$PORT" "$@" >"$TMP/line" 2>&1 &
	LINE_PID=$!
	cleanup_add "kill -KILL $LINE_PID 2>/dev/null || :"
	# shellcheck disable=SC2034 # the test uses it
	LINE=weft://127.0.0.1:$at/r
	wait_for -t 60 grep -qs ready "$TMP/line"
}
stop_line() {
	kill -TERM "$LINE_PID"
	wait "$LINE_PID" || fail "the line: $(cat "$TMP/line")"
}

map_is_busy() { grep -qs busy "$TMP/map" || gone "$MAP_PID"; }

# map_begins MODE [OPTION]… URI: returns once its threads fault.
map_begins() {
	local mode
	case $1 in
	paged) mode=1 ;;
	compat) mode=2 ;;
	resident) mode=3 ;;
	esac
	rm -f "$TMP/map"
	"$WEFT_BUILD/tests/map-trouble" -m "$mode" "${@:2}" >"$TMP/map" 2>&1 &
	MAP_PID=$!
	cleanup_add "kill -KILL $MAP_PID 2>/dev/null || :"
	wait_for -t 60 map_is_busy
	grep -q busy "$TMP/map" && return
	grep -q 'userfaultfd\|needs Linux\|need Linux' "$TMP/map" && skip "$(cat "$TMP/map")"
	fail "$(cat "$TMP/map")"
}
map_ends() {
	wait "$MAP_PID" || fail "$(cat "$TMP/map")"
	grep -v busy "$TMP/map"
}
