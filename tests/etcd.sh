# SPDX-License-Identifier: MIT
# What tests of etcd share: . "${BASH_SOURCE[0]%/*}/../etcd.sh", after lib.sh.
# shellcheck shell=bash

# start_etcd: a real one on this machine, with its state below $TMP.  Sets ETCD and ETCD_PID.
start_etcd() {
	local port peer
	port=${ETCD##*:}
	[[ $port ]] || port=$(free_port)
	peer=$(free_port)
	ETCD=http://127.0.0.1:$port
	etcd --name one --data-dir "$TMP/etcd" --listen-client-urls "$ETCD" \
		--advertise-client-urls "$ETCD" --listen-peer-urls "http://127.0.0.1:$peer" \
		--initial-advertise-peer-urls "http://127.0.0.1:$peer" \
		--initial-cluster "one=http://127.0.0.1:$peer" --unsafe-no-fsync \
		>>"$TMP/etcd.log" 2>&1 &
	export ETCD_PID=$!
	wait_for -t 60 etcd_answers
}
ETCD=''

etcd_answers() {
	[[ $(curl -sS "$ETCD/health" 2>/dev/null) = *true* ]]
}
