# SPDX-License-Identifier: MIT
# tier: long
# timeout: 660
# presets: dev asan
# processors: 2
# A signal to the bridge of a device that is mounted, or swap: it flushes, says who uses it, and
# stays; its file system works on; it ends by itself when the last user goes.  Killed after the
# signal, as a service manager does, nothing that was there by then is lost.  A detach waits as long
# as what the kernel cached goes on to arrive.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool mkfs.ext4

in_testbed --timeout 600 <<'END'
start_donor --memory r=64M
log=$WEFT_RUN_DIR/attach-r.log
patient=(--timeout 90 --dead-timeout 90 --transport tcp --lanes 2) # an emulator may be slow
attach() { # KIND [ARGUMENT…]
	weft attach "$URI" --device-kind "$1" "${patient[@]}" "${@:2}" >"$TMP/out" ||
		fail "attach $*: $(cat "$TMP/out")"
	dev=$(sed -n 's|.*device \(/dev/[a-z0-9]*\).*|\1|p' "$TMP/out")
	pid=$(pgrep -x weft-attach)
}
attach_and_mount() { # KIND: with a file whose sum is $sum
	attach "$1"
	mkfs.ext4 -q -F "$dev"
	mount "$dev" "$TMP/m"
	head -c 4M /dev/urandom >"$TMP/m/r"
	sum=$(md5sum <"$TMP/m/r")
}
said() { grep -qF "$1" "$log"; }
mkdir "$TMP/m"
for kind in nbd ublk; do
	for signal in TERM INT HUP; do
		echo "== $kind, SIG$signal, mounted"
		attach_and_mount "$kind"
		kill -s "$signal" "$pid"
		if [[ $signal != HUP ]]; then
			wait_for -t 60 said "what the kernel cached of 'r' is at its donor"
			wait_for -t 60 said "$dev is mounted on $TMP/m (ext4)"
		fi
		sync -f "$TMP/m" || fail "the file system was torn away"
		echo more >"$TMP/m/more"
		sync -f "$TMP/m" || fail "the file system was torn away"
		umount "$TMP/m"
		[[ $signal != HUP ]] || kill -TERM "$pid"
		wait_for -t 60 gone "$pid"
		[[ ! -e $log ]] || fail "not a clean end: $(cat "$log")"
		attach "$kind"
		mount "$dev" "$TMP/m"
		[[ $(md5sum <"$TMP/m/r") = "$sum" && $(cat "$TMP/m/more") = more ]] || fail "lost"
		umount "$TMP/m"
		weft detach r
	done

	echo "== $kind, a signal, then killed, then another bridge"
	attach_and_mount "$kind"
	# As to all of a service.
	mapfile -t all < <(pgrep -x 'weft-attach|weft-guard')
	kill -TERM "${all[@]}"
	wait_for -t 60 said "what the kernel cached of 'r' is at its donor"
	for one in "${all[@]}"; do
		! gone "$one" || fail "a process of the bridge ended: $one of ${all[*]}"
	done
	kill -TERM "$pid"
	kill -KILL "$pid"
	wait_for -t 60 gone "$pid"
	attach "$kind"
	grep -q 'taken over' "$TMP/out" || fail "$(cat "$TMP/out")"
	echo 3 >/proc/sys/vm/drop_caches
	[[ $(md5sum <"$TMP/m/r") = "$sum" ]] || fail "lost"
	umount "$TMP/m"
	weft detach r

	echo "== $kind, swap"
	attach "$kind"
	mkswap "$dev" >/dev/null
	swapon "$dev"
	kill -TERM "$pid"
	wait_for -t 60 said "$dev is swap space"
	swapoff "$dev" || fail "swapoff"
	wait_for -t 60 gone "$pid"
done

echo "== nbd, a detach over a slow line"
attach nbd
head -c 26M /dev/urandom >"$TMP/bytes"
tc qdisc add dev lo root tbf rate 8mbit burst 128k limit 256k
# The kernel writes back for a process that is gone.
(
	exec 8>"$dev"
	cat "$TMP/bytes" >&8
	: >"$TMP/written"
	kill -KILL "$BASHPID"
) &
wait_for -t 60 test -e "$TMP/written"
sleep 1
rm "$TMP/written"
SECONDS=0
weft detach r || fail "detach: $?"
echo "the detach took $SECONDS s"
((SECONDS > 22)) || fail "a detach of $SECONDS s tells nothing"
tc qdisc del dev lo root
attach nbd
cmp -n $((26 << 20)) "$TMP/bytes" "$dev" || fail "lost over a slow line"
weft detach r

stop_donor || fail "the donor's exit status: $?"
END
