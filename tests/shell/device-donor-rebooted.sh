# SPDX-License-Identifier: MIT
# tier: long
# timeout: 600
# presets: dev asan
# processors: 2
# The donor's machine dies under load, and what comes back at its address has other memory: every
# read fails (O_DIRECT, so that no cache of the kernel's answers), none returns zeros; what the
# cache held is saved, and a reset goes on, on the same device.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio nbdcopy jq

in_testbed --nodes 2 --timeout 500 <<'END'
node2 "WEFT_RUN_DIR=/run weft-serve --listen 0.0.0.0 --allow-insecure --memory direct=32M --memory managed=32M" >"$TMP/donor.log" 2>&1 &
donor=$!
listed() { timeout 5 weft list "weft://$PEER_TCP_IP" | grep -q "rdma:10809:$PEER_RDMA_IP"; }
wait_for -t 60 listed
attach() { # NAME OPTION…
	over_rdma() {
		weft attach "weft://$PEER_TCP_IP/$1" --device --lanes 2 \
			--dead-timeout 60 "${@:2}" >"$TMP/out" 2>&1 || { cat "$TMP/out" && exit 1; }
		grep -q 'transport rdma' "$TMP/out" && return
		weft detach "$1"
		return 1
	}
	wait_for -t 60 over_rdma "$@" # a busy emulator may not connect in time, and it is TCP then
	devices[$1]=$(sed -n 's/^  device \([^ ]*\).*/\1/p' "$TMP/out")
}
declare -A devices
attach direct --device-kind nbd
attach managed --device-kind ublk --cache 16M --cache-file "$TMP/cache" --push-interval 60
random_file "$TMP/data" $((32 << 20))
for name in direct managed; do
	dd if="$TMP/data" of="${devices[$name]}" bs=1M oflag=direct status=none
done
blockdev --flushbufs "${devices[managed]}"
sync "${devices[managed]}"
random_file "$TMP/new" $((4 << 20))
dd if="$TMP/new" of="${devices[managed]}" bs=1M oflag=direct status=none
fio --name=l --filename="${devices[direct]}" --ioengine=libaio --direct=1 --rw=randread --bs=4k \
	--iodepth=8 --time_based --runtime=120 \
	--minimal >"$TMP/fio" 2>&1 &
fio=$!
nr_reads() { awk '{print $1}' "/sys/block/${devices[direct]#/dev/}/stat"; }
before=$(nr_reads)
under_load() { (($(nr_reads) >= before + 100)) || gone "$fio"; }
wait_for -t 60 under_load
kill -0 "$fio" || fail "no load: $(cat "$TMP/fio")"
monitor2 quit >/dev/null
wait "$donor" || :
# A machine at the same address.
ip addr add "$PEER_TCP_IP/32" dev lo
WEFT_RUN_DIR=/run/donor
mkdir -m 700 /run/donor
WEFT_RUN_DIR=/run/donor weft-serve --listen "$PEER_TCP_IP" --allow-insecure --memory direct=32M \
	--memory managed=32M >"$TMP/donor2.log" 2>&1 &
WEFT_RUN_DIR=$TMP/run
export WEFT_RUN_DIR
state() { weft status "$1" --json | jq -r '.attachments[0].state'; }
both_stale() { [[ $(state direct) = stale && $(state managed) = stale ]]; }
wait_for -t 60 both_stale
wait "$fio" && fail "fio did not see it"
nr=0
for name in direct managed; do
	for ((i = 0; i < 64; i++)); do
		! dd if="${devices[$name]}" of="$TMP/got" bs=4k count=1 skip=$((RANDOM % 8192)) \
			iflag=direct status=none 2>"$TMP/err" ||
			fail "$name: a read was answered, with $(od -An -tx8 -N8 "$TMP/got")"
		grep -q 'Input/output error' "$TMP/err" || fail "$(cat "$TMP/err")"
		nr=$((nr + 1))
	done
done
echo "== $nr reads, all failed"
weft rescue managed "$TMP/saved" | tee "$TMP/out"
grep -q '4 MiB that were not at the donor' "$TMP/out" || fail "rescue"
cmp -n $((4 << 20)) "$TMP/saved" "$TMP/new" || fail "it saved something else"
for name in direct managed; do
	weft reset "$name" || fail "reset of $name"
	dd if="${devices[$name]}" bs=1M count=32 iflag=direct status=none |
		cmp -n $((32 << 20)) - /dev/zero || fail "$name has not the new contents"
	dd if="$TMP/data" of="${devices[$name]}" bs=1M oflag=direct conv=fsync status=none
	weft detach "$name"
	nbdcopy "nbd://$PEER_TCP_IP/$name" - | cmp - "$TMP/data" ||
		fail "$name: the donor has something else"
done
END
