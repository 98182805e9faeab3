# SPDX-License-Identifier: MIT
# What tests of QUIC share.  Source it after lib.sh.
# shellcheck shell=bash

# Without ngtcp2 weft is built all the same, and QUIC says that it is not there.
need_quic() {
	local said
	said=$(weft serve --memory q=1M --listen 127.0.0.1:0 --quic 127.0.0.1:0 2>&1) || :
	[[ $said != *"built without QUIC"* ]] || skip "this weft is built without QUIC"
}
