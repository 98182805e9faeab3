# SPDX-License-Identifier: MIT
# A region's file is copied while the donor is stopped cleanly, and put back after the borrower went
# on: the copy has older contents under a clean mark.  The borrower is stale, whether it attached
# before, during or after the donor's life that ended with the copy; waiting, or killed and taken
# over; whether the donor was stopped or killed before the copy was put back.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

port=$(free_port)
uri=weft://127.0.0.1:$port/r
socket="nbd+unix:///?socket=$TMP/s"
donor() { start_donor --file "r=$TMP/region" --lease 2 --listen "127.0.0.1:$port"; }
stop() { stop_donor || fail "the donor's exit status: $?"; }
attach=(weft attach "$uri" --socket "$TMP/s" --dead-timeout 120)
attached() { "${attach[@]}" >/dev/null || fail "$*: attach"; } # for a message
try() { # ATTACHED END BRIDGE
	local attached=$1 end=$2 bridge=$3
	rm -f "$TMP/region" "$TMP/copy"
	truncate -s 8M "$TMP/region"
	donor
	writes 0x41 0 8192 "nbd://127.0.0.1:$port/r" || fail "$*: $(cat "$TMP/io")"
	if [[ $attached = before ]]; then
		attached "$@"
		writes 0x41 0 4096 "$socket" || fail "$*: $(cat "$TMP/io")"
		stop
		donor
		reads 0x41 0 4096 "$socket" || fail "$*: $(cat "$TMP/io")"
	elif [[ $attached = during ]]; then
		attached "$@"
		reads 0x41 0 4096 "$socket" || fail "$*: $(cat "$TMP/io")"
	fi
	stop
	cp -a --preserve=all "$TMP/region" "$TMP/copy"
	donor
	[[ $attached != after ]] || attached "$@"
	writes 0x42 0 4096 "$socket" || fail "$*: it did not go on: $(cat "$TMP/io")"
	if [[ $end = stop ]]; then stop; else stop_donor KILL || :; fi
	[[ $bridge = waits ]] || kill_bridge
	cp -a --preserve=all "$TMP/copy" "$TMP/region"
	donor
	if [[ $bridge = waits ]]; then
		! io "$socket" -r -c 'read 4096 4096' || fail "$*: it reads on"
		is_stale || fail "$*: it is not stale: $(weft status r)"
	else
		attach_stale "${attach[@]:2}"
	fi
	! io "$socket" -c 'write -P 0x43 4096 4096' || fail "$*: it writes on"
	donor_has 0x41 0 8192 "nbd://127.0.0.1:$port/r" || fail "$*: it wrote on: $(cat "$TMP/io")"
	weft reset --discard r >"$TMP/out" 2>&1 || fail "$*: reset: $(cat "$TMP/out")"
	reads 0x41 0 8192 "$socket" || fail "$*: after the reset: $(cat "$TMP/io")"
	detach
	stop
}
for attached in before during after; do
	try "$attached" stop waits
	try "$attached" stop "is killed"
	try "$attached" kill waits
done
