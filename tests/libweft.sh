# SPDX-License-Identifier: MIT
# What tests of libweft share: a program that uses it, which is asked line by line.  Source it after
# lib.sh.
# shellcheck shell=bash

# donor_for SIZE: sets $port; each call of donor starts a donor there, which lends that much as r,
# with a lease of 2 s.
donor_for() {
	port=$(free_port)
	donor() { start_donor --memory "r=$lent" --listen "127.0.0.1:$port" --lease 2; }
	lent=$1
	donor
}

# opens [OPTION]… URI…: see tests/support/libweft-io.c.
opens() {
	coproc IO { exec "$WEFT_BUILD/tests/libweft-io" "$@" 2>"$TMP/libweft-io"; }
	LIBWEFT_PID=$IO_PID
	local said=
	read -r said <&"${IO[0]}" || :
	[[ $said = ok ]] && return
	wait "$LIBWEFT_PID" || :
	[[ ${FUNCNAME[1]} = wait_for ]] || fail "it does not open: $(cat "$TMP/libweft-io")"
	return 1
}
closes() {
	eval "exec ${IO[1]}>&-"
	wait "$LIBWEFT_PID" || fail "it ended with $?: $(cat "$TMP/libweft-io")"
}

# begin COMMAND…; ends ANSWER: it is waited for.
begin() {
	LIBWEFT_ASKED=$*
	echo "$*" >&"${IO[1]}"
}
ends() {
	local said=
	read -r -t 100 said <&"${IO[0]}" ||
		fail "$LIBWEFT_ASKED: no answer: $(cat "$TMP/libweft-io")"
	[[ $said = "$1" ]] && return
	# shellcheck disable=SC2034 # wait_for asks again
	[[ ${FUNCNAME[*]} = *wait_for* ]] || fail "$LIBWEFT_ASKED: $said, not $1"
	return 1
}
# says ANSWER COMMAND…
says() {
	begin "${@:2}"
	ends "$1"
}
# ask COMMAND…: prints the answer.
ask() {
	begin "$@"
	local said=
	read -r -t 100 said <&"${IO[0]}" ||
		fail "$LIBWEFT_ASKED: no answer: $(cat "$TMP/libweft-io")"
	echo "$said"
}
