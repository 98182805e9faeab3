# SPDX-License-Identifier: MIT
# tier: long
# timeout: 500
# presets: dev asan
# processors: 2
# A ublk device whose partition table cannot be read, as nobody answers, is given up after a minute,
# and nothing is left of it; one that is taken over while the kernel has the dead bridge still is
# waited for; one whose next bridges wait for their donor is ended in time, with errors.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool nbdkit

in_testbed --timeout 450 --memory 1G --cpus 2 <<'END'
port=$(free_port)
nbdkit -f -i 127.0.0.1 -p "$port" --filter=delay memory 16M rdelay=600 &
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port"); }
wait_for -t 30 listens
SECONDS=0
weft attach "nbd://127.0.0.1:$port/" --name r --device --device-kind ublk --lanes 1 --timeout 300 \
	--dead-timeout 300 >"$TMP/out" 2>&1 &&
	fail "it was attached: $(cat "$TMP/out")"
cat "$TMP/out"
grep -q "cannot start /dev/ublkb0: the kernel has not said within a minute .* see whether the donor answers; try again" "$TMP/out" ||
	fail "$(cat "$TMP/out")"
((SECONDS < 140)) || fail "it took $SECONDS s"
[[ ! -e /sys/block/ublkb0 && ! -e /dev/ublkb0 ]] || fail "the device is left"
! compgen -G "/sys/class/ublk-char/*" || fail "the device is left"

# A process that is stopped by a tracer in its end keeps the device: here one that holds its
# descriptors.
start_donor --listen "127.0.0.1:0" --memory r=16M --lease 20
weft attach "$URI" --device --device-kind ublk --lanes 1 || fail "attach"
pid=$(pgrep -x weft-attach)
fd=$(find "/proc/$pid/fd" -lname '/dev/ublkc0' -printf '%f')
cat >"$TMP/hold.py" <<'PY'
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
pidfd = os.pidfd_open(int(sys.argv[1]))
held = libc.syscall(438, pidfd, int(sys.argv[2]), 0)
assert held >= 0, ctypes.get_errno()
print("held", flush=True)
time.sleep(16)
PY
python3 "$TMP/hold.py" "$pid" "$fd" >"$TMP/held" &
wait_for -t 30 grep -q held "$TMP/held"
kill -KILL "$pid"
wait_for -t 60 gone "$pid"
SECONDS=0
weft attach "$URI" --device --device-kind ublk --lanes 1 >"$TMP/out" 2>&1 ||
	fail "take-over: $(cat "$TMP/out")"
cat "$TMP/out"
echo "taken over after $SECONDS s"
((SECONDS > 10)) || fail "nothing was waited for"
grep -q "waiting for the kernel to be done with the bridge of /dev/ublkb0 that died, pid $pid" \
	"$TMP/out" || fail "it said: $(cat "$TMP/out")"
dd if=/dev/ublkb0 of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null || fail "it cannot be read"
weft detach r || fail "detach"

again=(weft attach "$URI" --device --device-kind ublk --lanes 1 --timeout 4 --dead-timeout 8)
"${again[@]}" || fail "attach"
pkill -KILL -x weft-attach
stop_donor
SECONDS=0
dd if=/dev/ublkb0 of=/dev/null bs=4k count=1 iflag=direct 2>"$TMP/read" &
reader=$!
# Each try takes over anew.
for ((i = 0; i < 5; i++)); do
	timeout 4 "${again[@]}" --wait 0 >"$TMP/out" 2>&1 || :
done
timeout 30 "${again[@]}" --wait 0 >"$TMP/out" 2>&1 &
! wait "$reader" || fail "it was read"
echo "an error after $SECONDS s"
((SECONDS < 40)) || fail "the reader waited for $SECONDS s: $(cat "$TMP/out")"
grep -qi 'error' "$TMP/read" || fail "$(cat "$TMP/read")"
END
