# SPDX-License-Identifier: MIT
# --swap locks all of the bridge's memory, or is refused; and refuses what could wait for memory.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq prlimit setpriv qemu-io
[[ $EUID = 0 ]] || skip "only root locks memory without a limit"

start_donor --memory r=512M
refused() { # text, then the command
	local text=$1
	shift
	! "$@" >"$TMP/log" 2>&1 || fail "not refused: $*"
	grep -q -- "$text" "$TMP/log" || fail "$*: $(cat "$TMP/log")"
	! compgen -G "$WEFT_RUN_DIR/attach-r.*" || fail "$*: something is left of it"
}
attach=(weft attach "$URI" --socket "$TMP/s" --swap)
refused "--swap goes without --cache-file" "${attach[@]}" --cache 8M --cache-file "$TMP/c"
refused "--swap is for --device and --socket" "${attach[@]}" --mount "$TMP/f"
refused "--swap wants a --dead-timeout" "${attach[@]}" --dead-timeout 0
refused "with neither --read-only nor --shared" "${attach[@]}" --read-only
poor=(setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock)
refused "cannot lock this process in memory: .*; 4 MiB may be locked: .*CAP_IPC_LOCK.*ulimit -l" \
	"${poor[@]}" prlimit --memlock=4194304 "${attach[@]}"

"${attach[@]}" --lanes 2 --cache 8M >/dev/null 2>"$TMP/log" || fail "$(cat "$TMP/log")"
pid=$(weft status r --json | jq '.attachments[0].pid')
read -r size locked < <(awk '/^VmSize/ { s = $2 } /^VmLck/ { l = $2 } END { print s, l }' \
	"/proc/$pid/status")
# A library's tables that nobody reads.
unread=$(awk '/^[0-9a-f]+-/ { is = $6 ~ /libicudata/ && $2 !~ /w/ } is && /^Size:/ { n += $2 }
	END { print n + 0 }' "/proc/$pid/smaps")
# The kernel's own pages (vvar) are in the size alone.
((locked > size - unread - 64)) || fail "of $size KiB $locked are locked"
((locked < 96 << 10)) || fail "$locked KiB are locked"
weft status r --json | jq -e --argjson kib "$locked" '.attachments[0].swap |
	.locked_bytes == $kib * 1024 and .faults_major == 0 and .faults_minor == 0 and
	.grown_bytes == 0 and
	.reserve_free_bytes > 20e6 and .reserve_bytes > 24e6' >/dev/null ||
	fail "$(weft status r --json | jq -c '.attachments[0].swap')"
weft status --prometheus >"$TMP/metrics"
grep -qx 'weft_swap_major_faults_total{name="r"} 0' "$TMP/metrics" || fail "no metric"
# Its lanes come first, and may take memory that is kept for whoever has a real-time priority.
priority=-15 column=ni=
! chrt --rr 1 true 2>/dev/null || priority=1 column=rtprio=
[[ $(ps -L -o comm=,$column -p "$pid" | awk '$1 ~ /^weft-lane/ { print $2 }' | sort -u) = \
	"$priority" ]] || fail "$(ps -L -o comm=,$column -p "$pid")"
# Who reads a file of each process of the machine does not.
[[ $(ps -L -o comm=,ni=,rtprio= -p "$pid" | awk '$1 == "weft-swapped" { print $2, $3 }') = \
	"0 -" ]] || fail "$(ps -L -o comm=,ni=,rtprio= -p "$pid")"
# What the bridge itself is made of is not of its reserve.
weft detach r >/dev/null
"${attach[@]}" --lanes 1 --cache 512M --chunk-size 64K >/dev/null 2>"$TMP/log" ||
	fail "$(cat "$TMP/log")"
weft status r --json | jq -e '.attachments[0].swap.reserve_free_bytes > 20e6' >/dev/null ||
	fail "$(weft status r --json | jq -c '.attachments[0].swap')"
qemu-io -f raw -c 'write -P 7 0 64k' -c 'read -P 7 0 64k' "nbd+unix:///?socket=$TMP/s" \
	>"$TMP/log" || fail "$(cat "$TMP/log")"
weft detach r >/dev/null

# Beside it one that is not for swap says so.
weft attach "$URI" --socket "$TMP/s" >/dev/null
weft status r --json | jq -e '.attachments[0].swap == null' >/dev/null || fail "swap"
weft detach r >/dev/null
memory_group $((64 << 20))
refused "--swap locks about .*, and only .* of memory can be had (the memory limit of cgroup" \
	in_memory_group "${attach[@]}" --lanes 2 --cache 8M
# What it asks for beforehand is what it takes: past that, the kernel would look for it in vain.
about=$(sed -n 's/.*--swap locks about \([0-9]*\)[.0-9]* MiB.*/\1/p' "$TMP/log")
((about << 10 >= locked && about << 10 < locked * 5 / 4)) ||
	fail "$about MiB are asked for, and $locked KiB locked"
exit 0
