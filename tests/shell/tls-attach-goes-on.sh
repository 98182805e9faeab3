# SPDX-License-Identifier: MIT
# What an attachment over TCP has, it has over TLS, also when a donor is killed under fio.
# timeout: 240
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool fio jq
over_the_network

. "${BASH_SOURCE[0]%/*}/../attach-goes-on.sh" auto 'tcp+k\?tls'
wait_for grep -q "refused .*: there is no key for the identity alice" "$TMP"/donor.*
