# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# presets: dev asan
# Another implementation of a borrower over RDMA, written from weft-protocol(7) alone, gets on with
# a donor over soft-RoCE: connections, messages, memory, signs of life, revocation, a file, keys.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 500 <<'END'
borrower() \
	{ timeout 200 "$WEFT_BUILD/tests/second-borrower-rdma" "$RDMA_IP" "$@" || fail "$*: $?"; }
truncate -s 1M "$TMP/file"
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=4M --file "f=$TMP/file" --lease 8
borrower "$PORT" memory
borrower "$PORT" file
stop_donor || fail "the donor's exit status: $?"

echo "== what was flushed and what was left untold is in the file"
{
	yes a | tr -d '\n' | head -c 4096
	for ((i = 0; i < 300; i++)); do
		yes b | tr -d '\n' | head -c 512
		head -c 512 /dev/zero
	done
	head -c $(((1 << 19) - 4096 - 300 * 1024)) /dev/zero
	yes c | tr -d '\n' | head -c 100
	head -c $(((1 << 19) - 100)) /dev/zero
} >"$TMP/expected" 2>/dev/null || :
cmp "$TMP/file" "$TMP/expected" || fail "other bytes"

port_is_there() { [[ -s $TMP/port ]]; }
against() { # WHAT SIZE CHUNK: a donor that is a part of the tests
	rm -f "$TMP/port"
	"$WEFT_BUILD/tests/conformance/verbs-life" donor "$2" "$3" 8000 >"$TMP/port" &
	wait_for port_is_there
	borrower "$(cat "$TMP/port")" "$1"
	kill $!
}
# 512 chunks, which are weft's own only where a test says so.
against chunks $((16 << 20)) $((32 << 10))

export WEFT_KEYS=$TMP/keys SECRET=00112233445566778899aabbccddeeff
mkdir -m 700 "$WEFT_KEYS"
(
	umask 077
	echo "box:$SECRET" >"$WEFT_KEYS/keys.psk"
	echo '{"version": 1, "keys": {"box": {"rdma_plaintext": true}}}' >"$WEFT_KEYS/grants.json"
)
against keys $((4 << 20)) 0
END
