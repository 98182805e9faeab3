# SPDX-License-Identifier: MIT
# A pool of three donors: a lease is made, attached, shown, and ends; curl speaks to the coordinator
# as weft pool does; the coordinator is needed for new decisions alone.
# timeout: 120
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
need_tool jq curl qemu-io

start_pool
weft pool status | grep -q '^pool [0-9a-f]*: 0 donors$' || fail "$(weft pool status)"
weft pool donors | grep -q "no donor has joined" || fail "$(weft pool donors)"
pool_donor n1 64M --rack r1
A_PID=$DONOR_PID
grep -qx "pool $WEFT_POOL: 'n1' lends 64 MiB" "$DONOR_LOG" || fail "$(<"$DONOR_LOG")"
pool_donor n2 32M --rack r1
pool_donor n3 48M --rack r2

echo "a lease"
weft pool alloc scratch --size 16M >"$TMP/out" || fail "$(<"$TMP/out")"
grep -qx "lease 'scratch' is ready: 16 MiB, 1 copy" "$TMP/out" || fail "$(<"$TMP/out")"
grep -qE "^copy 0 at n1, there: weft://127.0.0.1:[0-9]+/pool-[0-9a-f]{16}$" "$TMP/out" ||
	fail "$(<"$TMP/out")"
uri=$(weft pool uris scratch)
weft list "$uri" >/dev/null || fail "$uri is not lent"
weft pool alloc scratch --size 16M >/dev/null || fail "the same again"
code=0
weft pool alloc scratch --size 32M >"$TMP/out" 2>&1 || code=$?
[[ $code = 1 && $(<"$TMP/out") = *"there is a lease 'scratch' already"* ]] ||
	fail "$code: $(<"$TMP/out")"

echo "it is attached"
weft attach pool:scratch --socket "$TMP/s" --name box || fail "attach"
qemu-io -f raw -c 'write -P 7 0 64k' -c flush "nbd+unix:///?socket=$TMP/s" >/dev/null
used() { weft pool leases scratch --json | jq -e ".regions[0].used == $1" >/dev/null; }
wait_for used true
code=0
weft pool release scratch >"$TMP/out" 2>&1 || code=$?
[[ $code = 1 && $(<"$TMP/out") = *"lease 'scratch' is attached; detach it first"* ]] ||
	fail "$code: $(<"$TMP/out")"

echo "without a coordinator"
stop_pool KILL
code=0
weft pool status >"$TMP/out" 2>&1 || code=$?
[[ $code = 1 && $(<"$TMP/out") = *"the coordinator at $WEFT_POOL does not answer"* ]] ||
	fail "$code: $(<"$TMP/out")"
qemu-io -f raw -c 'read -P 7 0 64k' -c 'write -P 8 64k 64k' "nbd+unix:///?socket=$TMP/s" |
	grep -q "wrote 65536" || fail "the data path needs it"
start_pool
for donor in n1 n2 n3; do
	wait_for has_donor "$donor"
done
wait_for lease_is scratch ready
wait_for used true

echo "tables, JSON and curl say the same"
weft pool leases | grep -qE '^scratch +ready +16 MiB +1 .* n1$' || fail "$(weft pool leases)"
weft pool donors | grep -qE '^n1 +open +64 MiB +16 MiB +1 +r1 +weft://' ||
	fail "$(weft pool donors)"
# All three have reported to the new coordinator.
sums_up() { weft pool status | grep -q '^144 MiB lent, 16 MiB used, room for 128 MiB$'; }
wait_for sums_up
[[ $(curl_pool GET /v1/leases/scratch | tail -n 1) = 200 ]] || fail "curl"
diff <(curl_pool GET /v1/leases/scratch | head -n 1 | jq -S 'del(.regions[].silent)') \
	<(weft pool leases scratch --json | jq -S 'del(.regions[].silent)') || fail "they differ"
curl_pool GET /metrics | grep -qx 'weft_pool_used_bytes 16777216' || fail "metrics"
wish='{"size_bytes": 1048576, "copies": 2}'
[[ $(curl_pool PUT /v1/leases/more -d "$wish" | tail -n 1) = 200 ]] || fail "curl cannot alloc"
wait_for lease_is more ready
[[ $(curl_pool DELETE /v1/leases/more | tail -n 1) = 200 ]] || fail "curl cannot release"
wait_for lease_is_gone more

echo "what is asked badly"
wrong() { # STATUS TEXT METHOD PATH [OPTION…]
	local status=$1 text=$2
	shift 2
	curl_pool "$@" >"$TMP/out"
	[[ $(tail -n 1 "$TMP/out") = "$status" && $(<"$TMP/out") = *"$text"* ]] ||
		fail "$*: $(<"$TMP/out")"
}
wrong 404 "no such path" GET /
wrong 404 "no such path" GET /v1/leases/a/b/c/d/e
wrong 404 "cannot be done with this path" POST /v1/status
wrong 404 "no lease 'none'" GET /v1/leases/none
wrong 400 "object of JSON" PUT /v1/leases/x
wrong 400 "is no JSON" PUT /v1/leases/x -d '{'
wrong 400 "size_bytes" PUT /v1/leases/x -d '{}'
wrong 400 "no name of a lease" PUT "/v1/leases/a%20b" -d '{"size_bytes": 1}'
wrong 403 "for no browser" GET /v1/status -H 'Origin: http://evil.example'
wrong 507 "none of 3 donors has room" PUT /v1/leases/x -d '{"size_bytes": 1073741824}'
head -c 2000000 /dev/zero | tr '\0' ' ' >"$TMP/long"
wrong 413 "too long" PUT /v1/leases/x --data-binary "@$TMP/long"

echo "copies"
weft pool alloc twice --size 4M --mirror 2 --spread rack >/dev/null || fail "alloc"
code=0
weft attach pool:twice --mirror 3 --socket "$TMP/s2" >"$TMP/out" 2>&1 || code=$?
[[ $code = 2 && $(<"$TMP/out") = *"lease 'twice' has 2 copies, so that --mirror 3 is wrong"* ]] ||
	fail "$code: $(<"$TMP/out")"
weft attach pool:twice --socket "$TMP/s2" || fail "attach"
qemu-io -f raw -c 'write -P 9 0 64k' -c flush "nbd+unix:///?socket=$TMP/s2" >/dev/null
weft status twice | grep -q "2 copies, all current" || fail "$(weft status twice)"
weft detach twice >/dev/null || fail "detach"
weft attach pool:twice --socket "$TMP/s2" >/dev/null || fail "attach again"
qemu-io -f raw -c 'read -P 9 0 64k' "nbd+unix:///?socket=$TMP/s2" | grep -q "read 65536" ||
	fail "other bytes"
weft detach twice >/dev/null || fail "detach"

echo "a region moves, and its donor forgets it when it ends"
weft pool alloc goes --size 2M --at n1 >/dev/null || fail "alloc"
weft pool move goes --to n3 | grep -q "^copy 0 at n3, there" || fail "move"
weft pool release goes >/dev/null || fail "release"
weft status --json | jq -e '[.donors[].moves.noted[] | select(.is == "taken")] == []' \
	>/dev/null || fail "$(weft status --json | jq '.donors[].moves')"

echo "a job's end waits for the leases of who has attached its memory"
weft pool alloc last --size 2M --for 9 >/dev/null || fail "alloc"
last=$(weft pool uris last)
weft attach "$last" --socket "$TMP/s3" --name last >/dev/null || fail "attach"
qemu-io -f raw -c 'write -P 5 0 64k' -c flush "nbd+unix:///?socket=$TMP/s3" >/dev/null
weft pool release --for 9 >/dev/null || fail "release --for"
kill -KILL "$(weft status last --json | jq '.attachments[0].pid')"
sleep 3
weft attach "$last" --socket "$TMP/s3" --name last >"$TMP/out" 2>&1 || fail "$(<"$TMP/out")"
qemu-io -f raw -c 'read -P 5 0 64k' "nbd+unix:///?socket=$TMP/s3" | grep -q "read 65536" ||
	fail "other bytes"
weft detach last >/dev/null || fail "detach"
is_ended() { ! weft list "$last" >/dev/null 2>&1; }
wait_for is_ended

echo "a job's end leaves the memory of a swap space that is left"
swap=job-18.here.swap
weft pool alloc "$swap" --size 2M --for 18 >/dev/null || fail "alloc"
echo "nobody can undo this" >"$WEFT_RUN_DIR/swap-$swap.json"
end_job() { weft pool job-end --job 18 --node here --dir "$TMP/jobs" >"$TMP/out" 2>&1; }
! end_job || fail "$(<"$TMP/out")"
[[ $(<"$TMP/out") = *"swap space '$swap' is left"* ]] || fail "$(<"$TMP/out")"
weft pool leases "$swap" >/dev/null || fail "its lease has ended"
rm "$WEFT_RUN_DIR/swap-$swap.json"
end_job || fail "$(<"$TMP/out")"
wait_for lease_is_gone "$swap"

echo "the end"
weft detach box >/dev/null
wait_for used false
weft pool release scratch | grep -qx "lease 'scratch' is released" || fail "release"
! weft list "$uri" >/dev/null 2>&1 || fail "$uri is lent still"
code=0
weft attach pool:scratch --socket "$TMP/s" >"$TMP/out" 2>&1 || code=$?
[[ $code = 1 && $(<"$TMP/out") = *"there is no lease 'scratch' of yours"* ]] ||
	fail "$code: $(<"$TMP/out")"
weft pool audit >"$TMP/audit"
for what in "alloc scratch: 16 MiB" "release scratch: released" "ended scratch: released" \
	"donor n1: joins at weft://"; do
	grep -qF "$what" "$TMP/audit" || fail "audit has no '$what': $(<"$TMP/audit")"
done
kill "$A_PID"
wait "$A_PID" || fail "a donor's end: $?"
stop_pool || fail "the coordinator's end"
