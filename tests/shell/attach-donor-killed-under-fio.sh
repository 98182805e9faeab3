# SPDX-License-Identifier: MIT
# A donor killed with -9 under fio and restarted: the same epoch, no wrong byte and no error.
# timeout: 180
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio jq

port=$(free_port)
start_donor --memory r=64M --listen "127.0.0.1:$port"
weft attach "$URI" --socket "$TMP/s" --lanes 4
before=$(weft status r --json | jq -r '.attachments[0].epoch')
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw --bsrange=4k-64k \
	--iodepth=16 --numjobs=2 \
	--size=32M --offset_increment=32M --io_size=400M --verify=crc32c --verify_state_save=0 \
	--verify_fatal=1 \
	--group_reporting >"$TMP/fio" 2>&1 &
fio=$!
requests() {
	[[ $(weft status r --json | jq .attachments[0].requests.write) -gt $1 ]]
}
for ((n = 1; n <= 3; n++)); do
	! gone $fio || break
	wait_for requests $((n * 500))
	kill -KILL "$DONOR_PID"
	wait "$DONOR_PID" || :
	start_donor --memory r=64M --listen "127.0.0.1:$port"
done
wait $fio || fail "fio: $(tail "$TMP/fio")"
((n > 1)) || fail "the donor was never killed"
weft status r --json |
	jq -e --arg epoch "$before" '.attachments[0] | .epoch == $epoch and .errors == 0 and
	.reconnects >= 4 and .state == "ready"' >/dev/null || fail "$(weft status r --json)"
weft detach r
