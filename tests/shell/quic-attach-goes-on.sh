# SPDX-License-Identifier: MIT
# What an attachment over TCP has, it has over QUIC, also when a donor is killed under fio.
# timeout: 240
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_tool fio jq
need_quic
over_the_network

. "${BASH_SOURCE[0]%/*}/../attach-goes-on.sh" quic 'quic (as told)' --quic PORT
