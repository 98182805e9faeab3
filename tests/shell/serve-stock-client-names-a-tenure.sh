# SPDX-License-Identifier: MIT
# A stock client that reconnects by itself, with whatever it remembers, names the region's tenure:
# it comes back after a cut, and is refused once another came in between, or the contents may have
# changed: after a reboot of the donor, after a file was opened again.
# presets: dev asan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"
need_tool socat nbdinfo

port=$(free_port) way=$(free_port)
truncate -s 8M "$TMP/region"
donor() { start_donor --memory m=8M --memory m@1=1M --file "f=$TMP/region" --lease 1 --listen "127.0.0.1:$port" --keep 0; }
restart() {
	stop_donor || fail "the donor's exit status: $?"
	donor
}
donor
nbd=nbd://127.0.0.1:$port
network_up
for region in m f; do
	t=$(tenure "$region")
	[[ $t =~ ^[0-9a-f]{8,}$ ]] ||
		fail "$region: weft list says no tenure: $(weft list "weft://127.0.0.1:$port" --json)"
	weft list "weft://127.0.0.1:$port" | grep -E "^$region .*$t" >/dev/null ||
		fail "$region: not in the table: $(weft list "weft://127.0.0.1:$port")"

	# Cut, and nobody else wrote.
	client "server.type=inet,server.host=127.0.0.1,server.port=$way,export=$region@$t"
	told 'write -P 0x41 0 8k' || fail "$region: $(cat "$TMP/client")"
	[[ $(tenure "$region") = "$t" ]] || fail "$region: its own coming ended its tenure"
	network_cut
	network_up
	told 'read -P 0x41 0 8k' || fail "$region: it may come back: $(cat "$TMP/client")"
	! grep verification "$TMP/client" || fail "$region: other bytes"
	told 'write -P 0x42 0 8k' || fail "$region: it may come back: $(cat "$TMP/client")"

	# Cut, and another wrote.
	network_cut
	writes 0x43 0 8192 "$nbd/$region" || fail "$region: $(cat "$TMP/io")"
	[[ $(tenure "$region") != "$t" ]] ||
		fail "$region: a writer who did not know it left the tenure as it was"
	network_up
	! told 'write -P 0x44 4k 4k' || fail "$region: it writes after another did"
	! told 'read 0 4k' || fail "$region: it reads after another wrote"
	client_ends
	reads 0x43 0 8192 "$nbd/$region" || fail "$region: written over: $(cat "$TMP/io")"
	! io "$nbd/$region@$t" -r -c "read 0 4k" || fail "$region: an old tenure is taken"
	grep -qi tenure "$TMP/io" || fail "$region: it does not say why: $(cat "$TMP/io")"

	# A weft borrower wrote meanwhile.
	t=$(tenure "$region")
	client "server.type=inet,server.host=127.0.0.1,server.port=$way,export=$region@$t"
	told 'write -P 0x45 0 8k' || fail "$region: $(cat "$TMP/client")"
	network_cut
	weft attach "weft://127.0.0.1:$port/$region" --name r --socket "$TMP/s" >/dev/null ||
		fail "$region: attach"
	writes 0x46 0 8192 "nbd+unix:///?socket=$TMP/s" || fail "$region: $(cat "$TMP/io")"
	detach
	network_up
	! told 'write -P 0x44 4k 4k' || fail "$region: it writes after a borrower did"
	client_ends
	reads 0x46 0 8192 "$nbd/$region" || fail "$region: written over: $(cat "$TMP/io")"

	# The donor restarts: memory has new contents, a file may have older ones.
	t=$(tenure "$region")
	client "server.type=inet,server.host=127.0.0.1,server.port=$way,export=$region@$t"
	told 'write -P 0x47 0 8k' || fail "$region: $(cat "$TMP/client")"
	restart
	! told 'write -P 0x44 0 4k' || fail "$region: it writes after the donor's restart"
	client_ends
done
# An exact name of a region wins over this reading.
nbdinfo --size "$nbd/m@1" >"$TMP/out" && [[ $(cat "$TMP/out") = 1048576 ]] ||
	fail "a region's own name: $(cat "$TMP/out")"
network_cut
