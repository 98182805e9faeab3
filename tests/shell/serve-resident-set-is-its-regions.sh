# SPDX-License-Identifier: MIT
# presets: dev release only
# A donor's resident set is its regions plus less than 16 MiB, also after clients came and went.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdcopy nbdinfo

overhead() {
	echo $(($(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$DONOR_PID/status") - 256 * 1024))
}

start_donor --memory scratch=256M
kib=$(overhead)
((kib > -1024)) || fail "the memory was not taken up front: $kib KiB beside the region"
((kib < 16384)) || fail "$kib KiB beside the region"
random_file "$TMP/data" 67108864
for _ in 1 2 3; do
	nbdcopy --connections=8 "$TMP/data" "nbd://127.0.0.1:$PORT/scratch"
	nbdcopy --connections=8 "nbd://127.0.0.1:$PORT/scratch" null:
done
for _ in {1..50}; do
	nbdinfo --size "nbd://127.0.0.1:$PORT/scratch" >/dev/null
done
kib=$(overhead)
echo "$kib KiB beside the region"
((kib < 16384)) || fail "$kib KiB beside the region after clients"
