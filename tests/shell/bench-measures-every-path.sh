# SPDX-License-Identifier: MIT
# weft bench over TCP: every path, all forms of output, and the region as it was.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq xmllint cmp
export TMPDIR=$TMP

start_donor --memory r=16M --memory used=16M
used=weft://127.0.0.1:$PORT/used \
	quick=(--time 0.5 --rounds 3 --sizes "4K,256K" --depths "1,4" --span 8M)

echo "== all that this machine has"
weft bench "$URI" "${quick[@]}" --json="$TMP/run.json" --csv="$TMP/run.csv" \
	--html "$TMP/run.html" >"$TMP/table" 2>"$TMP/err" ||
	fail "exit status $?: $(cat "$TMP/err")"
grep -q '^weft-bench: round 3 of 3$' "$TMP/err" || fail "no progress: $(cat "$TMP/err")"
for text in "$URI: 16 MiB, of which 8.0 MiB are used, read-write; 3 rounds of" \
	'reads of 4.0 KiB, 1 in flight' \
	'writes of 256 KiB, 4 in flight' 'tcp direct' 'tcp socket' 'not measured: rdma direct.*RDMA'; do
	grep -qE "${text//.0 /(\\.0)? }" "$TMP/table" || fail "no '$text' in: $(cat "$TMP/table")"
done
paths='tcp direct,tcp socket'
[[ ! -w /dev/fuse ]] || paths+=',tcp file'
jq -e --arg paths "$paths" '.weft_bench == 1 and .rounds == 3 and .mode == "read-write" and
	([.paths[].path] - ["tcp nbd", "tcp ublk"] | join(",")) == $paths and
	(.cells | length) == 6 * (.paths | length) and
	all(.cells[]; .ops > 0 and .ops_s.median > 0 and (.ops_s.rounds | length) == 3 and .latency_us.p50 > 0 and
		.latency_us.p50 <= .latency_us.p99 and .latency_us.p99 <= .latency_us.max * 1.02 and
		.cpu_us.bench.median > 0 and .cpu_us.donor.median > 0 and .wire_bytes_per_GB > 1e9) and
	all(.cells[]; (.path == "tcp direct") == (.cpu_us.bridge == null)) and
	.machine.kernel != null and (.machine | has("governor")) and .control_ops_s.median > 0 and
	all(.paths[]; .ready_ms.median > 0 and .network.interface == "lo" and .network.mtu > 0)' "$TMP/run.json" >/dev/null ||
	fail "$(cat "$TMP/run.json")"

echo "== as CSV"
[[ $(wc -l <"$TMP/run.csv") = $(($(jq '.cells | length' "$TMP/run.json") + 1)) ]] ||
	fail "$(cat "$TMP/run.csv")"
awk -F, 'NR == 1 {n = NF} NF != n || NR > 1 && ($6 <= 0 || $9 <= 0) {exit 1}' "$TMP/run.csv" ||
	fail "$(cat "$TMP/run.csv")"

echo "== as a page"
xmllint --noout "$TMP/run.html" || fail "it is not well-formed"
! grep -oE '(src|href)=|url\(|@import|<script|<link' "$TMP/run.html" ||
	fail "it wants something else"
! grep -oE '(nan|inf)[ "<]' "$TMP/run.html" || fail "figures that are none"
[[ $(grep -c '<figure>' "$TMP/run.html") = 14 ]] ||
	fail "$(grep -c '<figure>' "$TMP/run.html") plots"
[[ $(grep -c '<figcaption>.*\(lower\|higher\) is better' "$TMP/run.html") = 14 ]] ||
	fail "a plot does not say which way is good"
for text in "$URI" 'tcp socket' 'The donor runs on this machine, too' 'CPU frequency governor' 'MTU' "$(uname -r)" 'Not measured' 'microseconds' 'operations a second'; do
	grep -qF "$text" "$TMP/run.html" || fail "no '$text' on the page"
done

echo "== the same from its file"
weft bench --from "$TMP/run.json" --html "$TMP/again.html" | cmp - "$TMP/table" ||
	fail "another table"
xmllint --noout "$TMP/again.html" || fail "the page from the file"
jq '.cells as $cells | .paths[0] as $like |
	[("rdma", "tcp") as $t | ("direct", "socket", "file", "nbd", "ublk") as $front | ("", " cached") | select($front != "direct" or . == "") |
		{path: "\($t) \($front)\(.)", front: $front}] as $all |
	.paths = [$all[] | $like + .] | .cells = [$all[] as $one | $cells[] | select(.path == $like.path) | .path = $one.path]' \
	"$TMP/run.json" >"$TMP/most.json"
weft bench --from "$TMP/most.json" --html "$TMP/most.html" >/dev/null &&
	xmllint --noout "$TMP/most.html" || fail "the page with 18 paths"
[[ $(grep -o 'class="l f[0-4] d[0-3]"' "$TMP/most.html" | sort -u | wc -l) = 18 ]] ||
	fail "two paths look the same"
jq '(.paths[] | select(.path == "tcp socket")) |= (.path = "tcp device" | .front = "device") |
	(.cells[] | select(.path == "tcp socket")).path = "tcp device"' "$TMP/run.json" >"$TMP/old.json"
weft bench --from "$TMP/old.json" --csv="$TMP/old.csv" --html "$TMP/old.html" >"$TMP/old"
grep -q '^  tcp device ' "$TMP/old" && grep -q '^tcp device,read,' "$TMP/old.csv" &&
	xmllint --noout "$TMP/old.html" || fail "one of the time when there was but one device"
[[ $(grep -c '<figure>' "$TMP/old.html") = 14 ]] ||
	fail "$(grep -c '<figure>' "$TMP/old.html") plots of an old run"
for figure in 1.7e308 -1e30; do
	jq --argjson figure "$figure" '.cells[0].ops_s.median = $figure' "$TMP/run.json" \
		>"$TMP/insane.json"
	! weft bench --from "$TMP/insane.json" --html "$TMP/insane.html" >/dev/null 2>"$TMP/err" ||
		fail "$figure operations a second"
	grep -q 'is no run of weft bench' "$TMP/err" || fail "$(cat "$TMP/err")"
done
jq '.uri = "weft://h/<b>&\"x" | .machine.host = "a\u0001<i>"' "$TMP/run.json" >"$TMP/strange.json"
weft bench --from "$TMP/strange.json" --html "$TMP/strange.html" >/dev/null &&
	xmllint --noout "$TMP/strange.html" ||
	fail "text became markup"

echo "== zeros are left, and nothing runs"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/after"
head -c $((16 << 20)) /dev/zero | cmp - "$TMP/after" || fail "the region is not as it was"
weft status --json | jq -e '.attachments == []' >/dev/null || fail "$(weft status)"
! compgen -G "$TMP/weft-bench.*" >/dev/null || fail "left $(ls -d "$TMP"/weft-bench.*)"

echo "== what is in use is not destroyed by mistake"
random_file "$TMP/data" $((16 << 20))
nbdcopy "$TMP/data" "nbd://127.0.0.1:$PORT/used"
status=0
weft bench "$used" "${quick[@]}" >"$TMP/out" 2>"$TMP/err" || status=$?
[[ $status = 1 && ! -s $TMP/out ]] || fail "exit status $status"
grep -q 'the region is not empty.*--overwrite.*--read-only' "$TMP/err" || fail "$(cat "$TMP/err")"
weft bench "$used" "${quick[@]}" --read-only --json 2>/dev/null |
	jq -e '.mode == "read-only" and all(.cells[]; .op == "read") and (.paths | length) >= 2' \
		>/dev/null || fail "only reading"
nbdcopy "nbd://127.0.0.1:$PORT/used" "$TMP/after"
cmp "$TMP/data" "$TMP/after" || fail "its data was changed"
weft bench "$used" "${quick[@]}" --overwrite --paths direct --csv 2>/dev/null >"$TMP/out" ||
	fail "--overwrite"
[[ $(cut -d, -f1 "$TMP/out" | sort -u) = $'path\ntcp direct' ]] || fail "$(cat "$TMP/out")"

echo "== Ctrl-C, and a terminal that goes, end it, and leave zeros"
for signal in TERM HUP; do
	rm -f "$TMP/err" # of an earlier one
	weft bench "$URI" --time 60 --paths direct,socket --cache 8M >"$TMP/out" 2>"$TMP/err" &
	pid=$!
	wait_for grep -q 'round 1' "$TMP/err"
	kill -INT "$pid" 2>/dev/null || :
	kill -"$signal" "$pid"
	status=0
	wait "$pid" || status=$?
	[[ $status = 130 ]] || fail "exit status $status: $(cat "$TMP/err")"
	grep -q 'stopped; nothing is reported' "$TMP/err" || fail "$(cat "$TMP/err")"
	nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/after"
	head -c $((16 << 20)) /dev/zero | cmp - "$TMP/after" || fail "the region is not as it was"
	weft status --json | jq -e '.attachments == []' >/dev/null || fail "$(weft status)"
done
TMPDIR=$TMP weft bench "$URI" "${quick[@]}" --cache 8M >/dev/null 2>&1 || fail "with a cache"
! compgen -G "$TMP/weft-bench.*" >/dev/null || fail "left: $(ls -l "$TMP"/weft-bench.*)"

echo "== what it cannot do it says"
wrong() { # TEXT ARGUMENT…
	local text=$1
	shift
	! weft bench "$@" >"$TMP/out" 2>"$TMP/err" || fail "weft bench $*"
	grep -q -- "$text" "$TMP/err" || fail "weft bench $*: $(cat "$TMP/err")"
}
wrong 'the region is too small' "$URI" --sizes 4M --depths 8
wrong 'at most 32 MiB' "$URI" --sizes 4M --depths 16
wrong '--sizes wants' "$URI" --sizes 5000
wrong '--depths wants' "$URI" --depths 4,1
wrong '--paths wants' "$URI" --paths telepathy
if [[ ! -e /dev/ublk-control ]]; then
	wrong 'ublk cannot be had: tcp ublk: .*ublk' "$URI" "${quick[@]}" --paths direct,ublk
	wrong 'no path could be measured' "$URI" "${quick[@]}" --paths device
fi
wrong 'exclude each other' "$URI" --read-only --overwrite
wrong 'cannot connect to' "weft://127.0.0.1:1/r"
wrong 'cannot read' --from "$TMP/none"
wrong 'is no run of weft bench' --from <(echo '{}')
