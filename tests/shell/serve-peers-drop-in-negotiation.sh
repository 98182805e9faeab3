# SPDX-License-Identifier: MIT
# timeout: 240
# Peers that leave in the middle of their negotiation cost nobody anything: CVE-2013-7441 (the
# server ended), CVE-2019-14850 (the plugin was opened for whoever connected), CVE-2019-14851 (an
# export that was asked about, and not opened).  A handshake is cut after each of its bytes, by a
# goodbye of TCP and by a reset, at a donor without keys and at one with keys.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3 jq

weft key new box7 --store "$TMP/keys" --out "$TMP/box7.key" >/dev/null
files() { find "/proc/$DONOR_PID/fd" -type l | wc -l; }
for how in plain keys; do
	options=()
	[[ $how = plain ]] || options=(--keys "$TMP/keys")
	start_donor --memory r=1M "${options[@]}"
	weft attach "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" || fail "cannot attach"
	before=$(files)
	python3 - "$PORT" <<-'PY' || fail "a good client is not served"
		import socket, struct, sys

		def option(number, data=b""):
		    return struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data

		def named(number, name=b"r"):
		    name = struct.pack(">I", len(name)) + name
		    return option(number, name + struct.pack(">H", 0))

		flags = struct.pack(">I", 3)
		info, go, list_, starttls = named(6), named(7), option(3), option(5)
		handshakes = [flags + info + list_ + info + go, flags + option(1, b"r"),
		              flags + starttls + b"\x16\x03\x01\x02\x00"]
		linger = struct.pack("ii", 1, 0)
		for handshake in handshakes:
		    for length in range(len(handshake) + 1):
		        for reset in False, True:
		            s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		            s.sendall(handshake[:length])
		            if reset:
		                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
		            s.close()
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		s.sendall(flags + info)
		assert len(s.recv(18, socket.MSG_WAITALL)) == 18
		reply = s.recv(20, socket.MSG_WAITALL)
		assert struct.unpack(">QIIi", reply)[:2] == (0x3e889045565a9, 6), reply
	PY
	[[ -d /proc/$DONOR_PID ]] || fail "the donor ended"
	weft status r --json |
		jq -e '.attachments[0] | .reconnects == 0 and .errors == 0' >/dev/null ||
		fail "$(weft status r)"
	settled() { (($(files) <= before)); }
	wait_for -t 30 settled
	weft detach r >/dev/null
	stop_donor
done
