# SPDX-License-Identifier: MIT
# A donor whose coordinator is not what it should be: it lends no more than it was told to, and ends
# and moves nothing that is not the pool's.
# timeout: 60
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3

# It answers each report with the same orders, and keeps the last report.
cat >"$TMP/stranger.py" <<'PY'
import http.server, json, os, socketserver, sys

GIB = 1 << 30
ORDERS = {"pool": "0" * 16, "report_s": 1,
          "make": [{"name": "pool-000000000000000a", "size_bytes": GIB},
                   {"name": "pool-000000000000000b", "size_bytes": 3 << 20},
                   {"name": "pool-000000000000000c", "size_bytes": 2 << 20},
                   {"name": "pool-000000000000000d", "size_bytes": (1 << 63) - 1},
                   {"name": "pool-000000000000000e", "size_bytes": -1},
                   {"name": "own2", "size_bytes": 4096}, {"name": 7}, [], None],
          "end": [{"name": "own", "force": True}, {"force": True}, 3],
          "move": [{"name": "own", "to": "weft://127.0.0.1:1"},
                   {"name": "pool-000000000000000b", "to": "--help"}, "x"]}


class Stranger(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        report = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2] + ".new", "wb") as file:
            file.write(report)
        os.rename(sys.argv[2] + ".new", sys.argv[2])
        body = json.dumps(ORDERS).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "a donor"

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(sys.argv[1], Stranger).serve_forever()
PY
python3 "$TMP/stranger.py" "$TMP/sock" "$TMP/report" &
stranger=$!
wait_for test -S "$TMP/sock"
start_donor --memory own=1M --pool "unix:$TMP/sock" --pool-name n1 --lend 4M

reported() { # FILTER
	jq -e "$1" "$TMP/report" >/dev/null 2>&1
}
is_there() {
	reported '.regions | any(.name == "pool-000000000000000b" and (.making | not))'
}
wait_for -t 40 is_there
wait_for -t 20 reported '[.refused[].name] | contains(["pool-000000000000000a",
	"pool-000000000000000c", "pool-000000000000000d"])'
reported '[.regions[].name] == ["pool-000000000000000b"]' || fail "$(<"$TMP/report")"
reported '.refused[0].why == "has lent as much as it lends"' || fail "$(<"$TMP/report")"
weft list "weft://127.0.0.1:$PORT" >"$TMP/list" || fail "the donor's end"
grep -q "own" "$TMP/list" || fail "its own region has ended: $(<"$TMP/list")"
! grep -q "moves to" "$DONOR_LOG" || fail "$(<"$DONOR_LOG")"
stop_donor
kill "$stranger"
