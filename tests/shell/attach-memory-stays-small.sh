# SPDX-License-Identifier: MIT
# A bridge with 4 lanes stays under 64 MiB, and does not grow with requests.
# presets: release only
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio jq

start_donor --memory r=256M
weft attach "$URI" --socket "$TMP/s" --lanes 4 >/dev/null
pid=$(weft status r --json | jq '.attachments[0].pid')
resident() { # now and at most
	awk '/^VmRSS/ { now = $2 } /^VmHWM/ { most = $2 } END { print now, most }' \
		"/proc/$pid/status"
}
load() {
	fio --name=l --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw --size=256M \
		--group_reporting --output-format=terse "$@" \
		>"$TMP/fio" || fail "fio: $(cat "$TMP/fio")"
}
load --numjobs=4 --bs=1m --iodepth=16 --io_size=512M
load --numjobs=4 --bs=4m --iodepth=4 --io_size=512M
nbdcopy --connections=4 --request-size=33554432 "nbd+unix:///?socket=$TMP/s" null:
load --numjobs=4 --bs=4k --iodepth=32 --io_size=100M
read -r first peak < <(resident)
requests=1000000
[[ $WEFT_TIER != first ]] || requests=200000
load --numjobs=4 --bs=4k --iodepth=32 --number_ios=$((requests / 4)) --io_size=100G
read -r last peak < <(resident)
echo "resident after warming up $first KiB, after $requests requests $last KiB, at most $peak KiB"
((peak < 64 << 10)) || fail "$peak KiB"
((last < first + 1024)) || fail "it grew from $first to $last KiB"
weft detach r
