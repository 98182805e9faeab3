# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1000
# presets: dev asan
# processors: 2
# Maps over RDMA, in each mode, under threads that read and write: in one that is resident the
# network card reads into the map's pages.  RDMA is lost meanwhile: the faults go on over TCP, no
# access is SIGBUS, each finds what was written last, and the donor has all of it in the end.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 900 --memory 2G <<'END'
regions=(paged compat resident) pids=()
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory paged=16M --memory compat=16M \
	--memory resident=16M
for i in 0 1 2; do
	region=${regions[i]}
	"$WEFT_BUILD/tests/map-trouble" -m $((i + 1)) -d 120000 -t 400 \
		"weft://$RDMA_IP:$PORT/$region" >"$TMP/$region" 2>"$TMP/$region.err" &
	pids+=($!)
done
is_busy() { grep -qx busy "$TMP/$1"; }
granted() { grep -q "granted region '$1' to .* over $2:" "$DONOR_LOG"; }
goes_on_over_tcp() { granted "${regions[$1]}" tcp || gone "${pids[$1]}"; }
for region in "${regions[@]}"; do
	wait_for -t 120 is_busy "$region"
	granted "$region" rdma && ! granted "$region" tcp || fail "$(cat "$DONOR_LOG")"
done
# rxe waits until everybody who has it open is gone: in the background.
rdma link delete rxe0 </dev/null >/dev/null 2>&1 &
for i in 0 1 2; do
	wait_for -t 200 goes_on_over_tcp "$i"
	kill -TERM "${pids[i]}" || fail "${regions[i]}: $(cat "$TMP/${regions[i]}.err")"
done
for i in 0 1 2; do
	wait "${pids[i]}" || fail "${regions[i]}: $(cat "$TMP/${regions[i]}.err")"
	cat "$TMP/${regions[i]}"
done
stop_donor
END
