# SPDX-License-Identifier: MIT
# timeout: 90
# The copies of a pool's lease are one device, which outlives a donor.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"

start_pool
pool_donor n1 64M
first=$DONOR_PID
pool_donor n2 64M
weft pool alloc scratch --size 16M --mirror 2 >"$TMP/out" || fail "$(<"$TMP/out")"
weft attach pool:scratch --name m --socket "$TMP/s" --dead-timeout 4 >"$TMP/out" ||
	fail "not attached"
grep -q "2 copies, all current; survives: 1 donor" "$TMP/out" || fail "$(<"$TMP/out")"
writes 1 "0 16M" || fail "$(<"$TMP/io")"
kill -KILL "$first"
wait "$first" || :
reads 1 "0 16M" || fail "$(<"$TMP/io")"
writes 2 "0 1M" || fail "$(<"$TMP/io")"
wait_for is_degraded
detach
