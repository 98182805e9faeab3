# SPDX-License-Identifier: MIT
# tier: long
# presets: dev asan
# timeout: 2700
# processors: 2
# 100 rounds of what torture.sh does, under clients of ublk (over RDMA) and nbd devices, in the
# testbed.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 2600 <<'END'
for kind in ${WEFT_KINDS:-ublk nbd}; do
	mkdir "$TMP/$kind"
	options=(--devices "$kind")
	[[ $kind = nbd ]] || options+=(--rdma "$RDMA_IP")
	"$WEFT_BUILD/tests/torture" --rounds "${WEFT_ROUNDS:-50}" "${options[@]}" "$TMP/$kind" || {
		weft status
		tail -n 20 "$TMP/$kind"/*.log
		dmesg | tail -n 20
		fail "$kind"
	}
done
END
