# SPDX-License-Identifier: MIT
# What weft pool is told wrong, and what it says of dry runs, of JSON, of quotas and of callers.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
need_tool jq python3

start_pool
pool_donor n1 64M --rack r1
pool_donor n2 32M --rack r2
pool_donor n3 48M

refused() { # TEXT ARGUMENT…
	local text=$1 code=0
	shift
	weft pool "$@" >"$TMP/out" 2>"$TMP/err" || code=$?
	[[ $code = 1 && $(<"$TMP/err") = "weft-pool: "*"$text"* ]] ||
		fail "weft pool $*: $code: $(<"$TMP/err")"
}

echo "what cannot be"
refused "no lease 'none'" release none
refused "no lease 'none'" uris none
refused "there is no donor 'n9'" drain n9
refused "is no coordinator" status --url ftp://a
for host in 192.0.2.1 localhost.example.org localhosts:1 127.example.org 127.0.0.1.example.org; do
	refused "stays on this machine" status --url "http://$host"
done
refused "is no coordinator" status --url http://me@127.0.0.1:1@192.0.2.1
refused "the donor 'n1' reports" forget n1
refused "none of 3 donors has room for 65 MiB: 3 with too little room" alloc a --size 65M
refused "racks of their own; of 3 donors 2 fit: 1 of no known rack" alloc a --size 1M --mirror 3 \
	--spread rack
refused "another coordinator has $TMP/pool.db" serve --socket "$TMP/other" \
	--state "$TMP/pool.db"
refused "can be reached from other machines" serve --listen 0.0.0.0:0 --state "$TMP/other.db"

echo "a dry run explains"
weft pool alloc a --size 40M --mirror 2 --dry-run --explain >"$TMP/out" || fail "$(<"$TMP/out")"
grep -qx "room: met" "$TMP/out" || fail "$(<"$TMP/out")"
grep -qE '^n1 +0 +64 MiB +0 +r1 +has most room of those that fit$' "$TMP/out" ||
	fail "$(<"$TMP/out")"
grep -qE '^n2 +- +32 MiB +0 +r2 +with too little room$' "$TMP/out" || fail "$(<"$TMP/out")"
grep -qE '^n3 +1 +48 MiB +0 +- ' "$TMP/out" || fail "$(<"$TMP/out")"
grep -qx "lease 'a' could be made" "$TMP/out" || fail "$(<"$TMP/out")"
refused "2 copies of 50 MiB each want as many donors; of 3 donors 1 fits" alloc a --size 50M \
	--mirror 2 --dry-run --explain
grep -q "^room: NOT MET: 2 copies" "$TMP/out" || fail "$(<"$TMP/out")"
weft pool leases | grep -qx "no leases" || fail "a dry run did something"

echo "quotas"
weft pool quota "$(id -un)" --size 20M >"$TMP/out"
grep -qE "^user +$(id -un) +20 MiB +0 B +0.000$" "$TMP/out" || fail "$(<"$TMP/out")"
curl_pool PUT "/v1/quotas/user/$(id -un)" -d '{"bytes": -1}' >"$TMP/out"
[[ $(tail -n 1 "$TMP/out") = 400 && $(<"$TMP/out") = *"null: no quota"* ]] || fail "$(<"$TMP/out")"
refused "may have 20 MiB of the pool, and has 0 B: 21 MiB more is too much" alloc a --size 21M
weft pool alloc a --size 1M --mirror 2 --project p --for 17 --explain --json >"$TMP/alloc"
jq -e '.idle_s == 600 and .job == "17" and .copies == 2' "$TMP/alloc" >/dev/null ||
	fail "$(<"$TMP/alloc")"
weft pool leases --for 17 | grep -q '^a ' || fail "$(weft pool leases --for 17)"
weft pool leases --for 18 | grep -qx "no leases" || fail "$(weft pool leases --for 18)"
weft pool release --for 17 | grep -qx "1 leases of job '17' end" || fail "release --for"
weft pool release --for 17 >/dev/null || fail "it is an error to end a job twice"
wait_for lease_is_gone a
weft pool quota p --project p --none | grep -qE '^project +p +none +0 B' ||
	fail "$(weft pool quotas)"

echo "JSON"
schema() {
	jq -r --arg of pool --arg keys "$1" -f "$WEFT_SRC/tests/support/status-schema.jq"
}
for what in status donors leases quotas; do
	weft pool "$what" --json >"$TMP/$what" || fail "$what"
done
weft pool audit --json | jq -s . >"$TMP/audit"
jq -n --slurpfile status "$TMP/status" --slurpfile donors "$TMP/donors" \
	--slurpfile leases "$TMP/leases" --slurpfile quotas "$TMP/quotas" \
	--slurpfile audit "$TMP/audit" --slurpfile alloc "$TMP/alloc" '{status: $status[0],
	donors: $donors[0], leases: $leases[0], quotas: $quotas[0], audit: $audit[0],
	alloc: $alloc[0]}' >"$TMP/all"
wrong=$(schema no <"$TMP/all") || fail "jq"
[[ ! $wrong ]] || fail "$wrong"
schema yes <"$TMP/all" >"$TMP/keys"
while read -r key; do
	grep -qE "(^|[^a-z_])$key([^a-z_]|$)" "$WEFT_SRC/fabric/man/weft-pool.1" ||
		fail "weft-pool(1) does not name $key"
done <"$TMP/keys"

echo "a pool that is damaged, and one of a newer weft"
stop_pool || fail "the coordinator's end"
python3 - "$TMP/pool.db" <<-'PY'
	import sqlite3, sys
	sqlite3.connect(sys.argv[1]).execute("PRAGMA user_version = 99")
PY
refused "is of a newer weft" serve --socket "$TMP/other" --state "$TMP/pool.db"
head -c 8192 /dev/urandom >"$TMP/pool2.db"
chmod 600 "$TMP/pool2.db"
refused "$TMP/pool2.db is damaged" serve --socket "$TMP/other" --state "$TMP/pool2.db"
chmod 644 "$TMP/pool2.db"
refused "$TMP/pool2.db" serve --socket "$TMP/other" --state "$TMP/pool2.db"
