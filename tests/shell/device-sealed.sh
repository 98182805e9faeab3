# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1800
# presets: dev asan
# processors: 2
# A device whose contents are sealed, over nbd.ko and ublk, TCP and RDMA, under fio verify: the
# bridge is killed again and again ($WEFT_KILLS times in each), the next one goes on with what the
# guard kept, and no write that was answered is lost, and no block is an error.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq

in_testbed --timeout 1700 -- "${WEFT_KILLS:-25}" <<'END2'
kills=$1 port=$(free_port)
start_donor --listen "$RDMA_IP:$port" --allow-insecure --memory r=64M --lease 20
bridge() { pgrep -x weft-attach; }
no_bridge() { ! bridge >/dev/null; }
no_guard() { ! pgrep -x weft-guard >/dev/null; }
try() { # KIND TRANSPORT OPTION
	attach() {
		weft attach "weft://$RDMA_IP:$port/r" --device --device-kind "$1" --transport "$2" \
			--lanes 2 --timeout 90 --dead-timeout 90 \
			--cache 16M --push-interval 1 "${@:3}" >"$TMP/out" ||
				fail "attach: $(cat "$TMP/out")"
	}
	attach "$@" --new-contents
	device=$(sed -n 's/^  device \([^ ]*\).*/\1/p' "$TMP/out")
	echo "== $*: $device"
	head -c 64M /dev/zero | cmp - "$device" || fail "it does not begin empty"
	nr_requests() { awk '{print $1 + $5}' "/sys/block/${device#/dev/}/stat"; }
	fio --name=v --filename="$device" --ioengine=libaio --direct=1 --size=32M --rw=randwrite \
		--bssplit=4k/60:64k/30:1m/10 \
		--iodepth=8 --numjobs=2 --offset_increment=32M --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 --do_verify=1 --time_based=0 \
		--loops=1000 --rate=6m --group_reporting --minimal >"$TMP/fio" 2>&1 &
	fio=$!
	for ((n = 0; n < kills; n++)); do
		sleep "0.$((RANDOM % 9))" # a moment that nothing here chooses
		kill -KILL "$(bridge)"
		wait_for no_bridge
		attach "$@"
		kill -0 "$fio" || fail "fio after $n kills: $(cat "$TMP/fio"; dmesg | tail -n 20)"
	done
	before=$(nr_requests)
	went_on() { (($(nr_requests) >= before + 200)) || gone "$fio"; }
	wait_for -t 60 went_on
	kill -INT "$fio"
	wait "$fio" || :
	! grep -qi 'verify\|error' "$TMP/fio" || fail "fio: $(cat "$TMP/fio")"
	cksum <"$device" >/dev/null || fail "a block cannot be read"
	[[ $(weft status r --json | jq .attachments[0].cache.bad_blocks) = 0 ]] || fail "bad blocks"
	weft detach r || fail "detach"
	wait_for no_guard
	! grep -i 'I/O error' <(dmesg) || fail "the kernel saw errors"
	echo "   $kills kills, and no error"
}
try nbd tcp --verify
try ublk tcp --encrypt
try nbd rdma --encrypt
try ublk rdma --verify
stop_donor || fail "the donor's exit status: $?"
END2
[[ $(grep -c '^   .* kills, ' "$TMP/output") == 4 ]] || fail "$(cat "$TMP/output")"
