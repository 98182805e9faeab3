# SPDX-License-Identifier: MIT
# The same as pool-survives-each-step with the state in a real etcd: of one coordinator, which is
# killed and started again, then of two, of which the other leads then.
# tier: long
# timeout: 2400
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
. "${BASH_SOURCE[0]%/*}/../etcd.sh"
. "${BASH_SOURCE[0]%/*}/../pool-steps.sh"
need_tool jq curl etcd

start_etcd
POOL_STATE=(--etcd "$ETCD")
# shellcheck disable=SC2034
COORDINATORS=("$TMP/pool.sock")
every_step "${POOL_STEPS[@]}"
stop_all

echo "two coordinators"
COORDINATORS+=("$TMP/pool2.sock")
export WEFT_POOL=unix:$TMP/pool.sock,unix:$TMP/pool2.sock
POOL_STATE+=(--etcd-prefix /another/pool)
every_step "${POOL_STEPS[@]}"
