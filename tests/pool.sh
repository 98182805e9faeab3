# SPDX-License-Identifier: MIT
# What tests of pools share: . "${BASH_SOURCE[0]%/*}/../pool.sh", after lib.sh.
# shellcheck shell=bash

# start_pool [OPTION…]: a coordinator on a socket of this test's, with its state in $TMP/pool.db,
# once it is ready.  Sets POOL_PID and POOL_LOG; weft pool asks it.  A test may set POOL_SOCKET and
# POOL_STATE otherwise.
export WEFT_POOL=unix:$TMP/pool.sock
POOL_SOCKET=$TMP/pool.sock
POOL_STATE=(--state "$TMP/pool.db")
start_pool() {
	POOL_LOG=$(mktemp "$TMP/pool.XXXXXX.log")
	weft-pool serve --socket "$POOL_SOCKET" "${POOL_STATE[@]}" --keys "$TMP/pool-keys" \
		"$@" >"$POOL_LOG" 2>&1 &
	POOL_PID=$!
	wait_for -t 60 pool_is_ready_or_dead
	grep -qx ready "$POOL_LOG" || fail "the coordinator did not start: $(<"$POOL_LOG")"
}
mkdir -m 700 "$TMP/pool-keys"

pool_is_ready_or_dead() {
	grep -qx ready "$POOL_LOG" || gone "$POOL_PID"
}

stop_pool() { # [SIGNAL]
	kill -s "${1:-TERM}" "$POOL_PID"
	wait "$POOL_PID" || [[ ${1:-TERM} = KILL ]]
}

# pool_donor NAME SIZE [OPTION…]: a donor of the pool, once the coordinator knows it.
pool_donor() {
	local name=$1 size=$2
	shift 2
	start_donor --pool "$WEFT_POOL" --pool-name "$name" --lend "$size" "$@"
	wait_for -t 60 has_donor "$name"
}

# curl_pool METHOD PATH [OPTION…]: what curl gets of the coordinator, and the status behind it.
curl_pool() {
	local method=$1 path=$2
	shift 2
	curl -sS --unix-socket "$TMP/pool.sock" -X "$method" -w '\n%{http_code}' "$@" \
		"http://pool$path"
}

has_donor() {
	weft pool donors --json | jq -e --arg name "$1" \
		'.donors | any(.donor == $name and (.silent | not))' >/dev/null
}

lease_is() { # NAME STATE
	[[ $(weft pool leases "$1" --json 2>/dev/null | jq -r .state) = "$2" ]]
}

lease_is_gone() {
	! weft pool leases "$1" >/dev/null 2>&1
}
