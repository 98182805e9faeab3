# SPDX-License-Identifier: MIT
# From the connect to the first bytes of a READ over TLS 1.3: TCP's handshake, STARTTLS, TLS's
# handshake, everything up to the grant, the READ.  As attach-takes-three-round-trips.sh.
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_line

first_read_takes 5 'tcp+k\?tls.*TLS1.3'
