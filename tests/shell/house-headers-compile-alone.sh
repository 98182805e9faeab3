# SPDX-License-Identifier: MIT
# Each header includes what it needs.
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"

cd "$WEFT_SRC"
flags=$(pkg-config --cflags jansson hwloc liburiparser libsystemd libnbd fuse3 python3)
while read -r header; do
	[[ $header != *.hpp ]] || continue
	# shellcheck disable=SC2086 # flags are words
	gcc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter -fsyntax-only \
		-I. $flags \
		-include "$header" -x c /dev/null || fail "$header does not compile alone"
done < <(find fabric transports nbd-bridge perf/harness -name '*.h' 2>/dev/null)
