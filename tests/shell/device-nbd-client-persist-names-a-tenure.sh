# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# presets: dev asan
# processors: 2
# The kernel's own client with nbd-client -persist, straight at a donor by NAME@TENURE: after a cut
# it comes back as long as nobody else came; after another writer, and after the donor's reboot, it
# is refused for good, and writes nothing.  (With kernels of our day nbd-client -persist ends when
# its connection does, and whoever relies on it starts it again, as nbd@.service can. While somebody
# has the device open it cannot come back at all; so it has no pages of before when it does.)
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool qemu-io socat

in_testbed --timeout 500 <<'END'
. tests/ownership.sh
need_tool nbd-client
modprobe nbd nbds_max=4 2>/dev/null || :
device=/dev/nbd3 port=$(free_port) way=$(free_port)
start() { start_donor --memory r=16M --lease 3 --keep 0 --listen "127.0.0.1:$port"; }
donor=nbd://127.0.0.1:$port/r
put() { timeout 100 dd of="$device" bs=4096 seek="$2" oflag=direct conv=notrunc status=none 2>"$TMP/err" < <(head -c 4096 /dev/zero | tr '\0' "$1"); }
connected() { nbd-client -c "$device" >/dev/null; }
persist() { # TENURE: until it is told to stop
	until [[ -e $TMP/stop ]]; do
		nbd-client 127.0.0.1 "$way" "$device" -N "r@$1" -nonetlink -persist -nofork || :
		sleep 0.5
	done >"$TMP/client" 2>&1
}
persist_ends() {
	touch "$TMP/stop"
	nbd-client -nonetlink -d "$device" >/dev/null 2>&1 || :
	wait_for -t 60 gone "$CLIENT"
	wait "$CLIENT" || :
	rm "$TMP/stop"
}
attempts() { grep -c Negotiation "$TMP/client" || :; }
tried_again() { (($(attempts) >= before + 1)); }

start
network_up
for what in "another writer" "a weft borrower" reboot; do
	echo "== $what"
	writes 0x41 0 65536 "$donor" || fail "$(cat "$TMP/io")"
	tenure=$(tenure r)
	[[ $tenure =~ ^[0-9a-f]{8,}$ ]] || fail "weft list says no tenure"
	persist "$tenure" &
	CLIENT=$!
	wait_for -t 30 connected
	cmp -n 8192 "$device" <(head -c 8192 /dev/zero | tr '\0' A) ||
		fail "it reads something else"
	network_cut
	network_up
	wait_for -t 60 put C 1 ||
		fail "it did not come back after a cut: $(cat "$TMP/client" "$TMP/err")"
	network_cut
	case $what in
	"a weft borrower")
		weft attach "weft://127.0.0.1:$port/r" --transport tcp \
			--socket "$TMP/s" >/dev/null || fail "attach"
		writes 0x42 0 65536 "nbd+unix:///?socket=$TMP/s" || fail "$(cat "$TMP/io")"
		detach
		;;
	reboot)
		stop_donor || fail "the donor's exit status: $?"
		start
		writes 0x42 0 65536 "$donor" || fail "$(cat "$TMP/io")"
		;;
	*) writes 0x42 0 65536 "$donor" || fail "$(cat "$TMP/io")" ;;
	esac
	before=$(attempts)
	network_up
	wait_for -t 60 tried_again || fail "it does not try: $(cat "$TMP/client")"
	! put E 3 || fail "it writes"
	! timeout 100 dd if="$device" bs=4096 skip=4 count=1 iflag=direct status=none of=/dev/null \
		2>"$TMP/err" || fail "it reads"
	persist_ends
	reads 0x42 0 65536 "$donor" || fail "written over: $(cat "$TMP/io")"
done
network_cut
stop_donor || fail "the donor's exit status: $?"
END
