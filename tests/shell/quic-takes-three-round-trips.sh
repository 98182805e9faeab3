# SPDX-License-Identifier: MIT
# From the first packet to the first bytes of a READ over QUIC: the handshake, everything up to the
# grant over the first stream, the READ.  As tls-takes-five-round-trips.sh.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "${BASH_SOURCE[0]%/*}/../quic.sh"
need_line
need_quic

first_read_takes 3 'quic.*TLS1.3' 10810
