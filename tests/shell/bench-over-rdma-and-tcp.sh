# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# processors: 2
# weft bench on a machine with soft-RoCE, nbd and ublk: RDMA and TCP beside each other, and over
# both each method, in every round; each path says which it is, over the device that it names.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq xmllint

mkdir "$TMP/out"
in_testbed --timeout 560 --out "$TMP/out" <<'END'
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=16M
uri=weft://$RDMA_IP:$PORT/r one=(--time 1 --rounds 1 --sizes 4K --depths 1 --span 4M --paths direct)
weft bench "$uri" --time 5 --rounds 3 --sizes 4K,256K --depths 1,8 --span 8M \
	--json="$OUT/run.json" --html "$OUT/run.html"
weft bench "$uri?transport=tcp" "${one[@]}" --json="$OUT/tcp.json" >/dev/null
weft bench "$uri?transport=rdma" "${one[@]}" --json="$OUT/rdma.json" >/dev/null
weft status --json | jq -e '.attachments == []' >/dev/null || fail "$(weft status)"
! compgen -G '/dev/ublkb*' >/dev/null || fail "left $(ls /dev/ublkb*)"

# The two kinds of device alone, with a cache; and what becomes of it without the driver of one.
few=(--time 2 --rounds 2 --sizes 4K --depths 1 --span 4M)
weft bench "$uri?transport=tcp" "${few[@]}" --paths device --cache 4M \
	--json="$OUT/cached.json" >/dev/null
modprobe -r ublk_drv
weft bench "$uri?transport=tcp" "${few[@]}" --paths direct,device \
	--json="$OUT/without.json" >/dev/null
! weft bench "$uri?transport=tcp" "${few[@]}" --paths direct,ublk >"$TMP/chosen" 2>&1 ||
	fail "ublk was chosen and is not to be had"
grep -q '^weft-bench: ublk cannot be had: tcp ublk: .*modprobe ublk_drv' "$TMP/chosen" ||
	fail "$(cat "$TMP/chosen")"
weft status --json | jq -e '.attachments == []' >/dev/null || fail "$(weft status)"
stop_donor || fail "the donor's exit status: $?"
END
[[ -z ${KEEP_OUT:-} ]] || cp "$TMP"/out/* "$KEEP_OUT"
jq -e '[.paths[].path] == [("rdma", "tcp") as $t | $t + (" direct", " socket", " file", " nbd", " ublk")] and
	.not_measured == [] and all(.paths[]; (.lanes == null) == (.front == "direct")) and .rounds == 3 and all(.paths[]; .ready_ms.rounds | length == 3) and
	all(.cells[]; .ops_s.rounds | length == 3) and
	all(.paths[]; if .path | startswith("rdma") then .network.rdma_device == "rxe0" and .network.gid_type == "RoCE v2" and
		.network.rdma_mtu == 4096 and .network.rdma_in_software == true and (.network.gid | length) == 39 and (.how | startswith("rdma rxe0 gid "))
		else .network.rdma_device == null and .network.interface == "lo" and (.how | startswith("tcp ")) end) and
	all(.cells[]; .ops > 0 and .latency_us.p50 > 0 and
		(if .path | startswith("rdma") then .wire_bytes_per_GB == null else .wire_bytes_per_GB > 1e9 end)) and
	all(.cells[] | select(.path == "rdma direct"); .cpu_us.donor.median < .cpu_us.bench.median / 20) and (.cells | length) == 6 * (.paths | length)' "$TMP/out/run.json" >/dev/null ||
	fail "$(cat "$TMP/out/run.json")"
[[ $(jq -c '[.paths[].path]' "$TMP/out/tcp.json" "$TMP/out/rdma.json") = \
	$'["tcp direct"]\n["rdma direct"]' ]] || fail "one transport alone"
[[ $(jq -c '[.paths[].path]' "$TMP/out/cached.json") = \
	'["tcp nbd","tcp ublk","tcp nbd cached","tcp ublk cached"]' ]] ||
	fail "$(cat "$TMP/out/cached.json")"
jq -e '[.paths[].path] == ["tcp direct", "tcp nbd"] and
	any(.not_measured[]; .paths == "tcp ublk" and (.why | test("modprobe ublk_drv")))' "$TMP/out/without.json" >/dev/null ||
	fail "$(cat "$TMP/out/without.json")"
xmllint --noout "$TMP/out/run.html" || fail "the page is not well-formed"
grep -q 'rdma direct' "$TMP/out/run.html" && grep -q 'RoCE v2' "$TMP/out/run.html" ||
	fail "the page does not say which"
grep -q 'emulated in software' "$TMP/out/run.html" &&
	grep -q 'emulated in software' "$TMP/output" || fail "it is taken for an adapter's RDMA"
