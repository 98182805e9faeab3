# SPDX-License-Identifier: MIT
# timeout: 90
# The link to the donor is cut without a word: status says since when there is no answer and how
# many requests wait, detach says at once what it waits for, and a request fails when --dead-timeout
# is over, not long after.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse && $EUID = 0 ]] || skip "needs /dev/fuse and root"
need_tool jq ip
unshare -n true 2>/dev/null || skip "no network namespaces here"
if [[ ! ${IN_NETNS:-} ]]; then
	IN_NETNS=1 unshare -n bash "${BASH_SOURCE[0]}" || exit $?
	exit 0
fi
ip link set lo up

start_donor --memory r=8M --lease 60
weft attach "$URI" --mount "$TMP/f" --dead-timeout 6 --lanes 1 >"$TMP/out" ||
	fail "$(cat "$TMP/out")"
echo before | dd of="$TMP/f" conv=notrunc,fsync status=none
[[ $(weft status r) = *"  ready"$'\n'* ]] || fail "$(weft status r)"

echo "a write waits, and fails in time"
ip link set lo down
start=$(date +%s%N)
dd if=/dev/zero of="$TMP/f" bs=4k count=1 conv=notrunc,fsync status=none 2>"$TMP/dd" &
dd=$!
silent() {
	[[ $(weft status r) =~ "  ready, but no answer for "[2-9]" s (1 request waits)" ]]
}
wait_for silent
[[ $(weft status r --json | jq '.attachments[0] | .silent_s > 1.5 and .waiting_requests == 1') = \
	true ]] || fail "$(weft status --json)"
! wait "$dd" || fail "the write succeeded"
took_ms=$((($(date +%s%N) - start) / 1000000))
((took_ms > 5000 && took_ms < 9000)) ||
	fail "--dead-timeout 6 failed the write after $took_ms ms: $(cat "$TMP/dd")"
[[ $(weft status r) =~ "  dead for "[0-9]+" s: " ]] || fail "$(weft status r)"

echo "it comes back"
ip link set lo up
ready() {
	[[ $(weft status r) = *"  ready"$'\n'* ]]
}
wait_for -t 30 ready
[[ $(head -c 6 "$TMP/f") = before ]] || fail "other contents"

echo "detach says at once what it waits for; --force does not wait"
dd if=/dev/zero of="$TMP/f" bs=4k count=1 conv=notrunc status=none
ip link set lo down
: >"$TMP/out"
weft detach r >"$TMP/out" 2>&1 &
detach=$!
told() {
	[[ $(cat "$TMP/out") = \
		"weft-detach: waiting for what was written to arrive at the donor; to give up now: weft detach --force r" ||
		$(cat "$TMP/out") = \
			"weft-detach: waiting up to 20 s for the donor, which does not answer"*"; to give up now: weft detach --force r" ]]
}
wait_for -t 3 told
! wait "$detach" || fail "detached, although the donor has not got what was written"
grep -q "'r' is not detached: what the kernel caches of it could not be written to the donor" \
	"$TMP/out" || fail "$(cat "$TMP/out")"
: >"$TMP/out"
weft detach r >"$TMP/out" 2>&1 &
detach=$!
wait_for -t 1 grep \
	-q \
	"waiting up to 20 s for the donor, which does not answer: .*; to give up now: weft detach --force r" "$TMP/out"
wait "$detach" || :
start=$(date +%s%N)
! weft detach --force r >"$TMP/out" 2>&1 || fail "the last flush cannot have been answered"
took_ms=$((($(date +%s%N) - start) / 1000000))
((took_ms < 4000)) || fail "--force took $took_ms ms"
grep -q "'r' is detached, but the last FLUSH" "$TMP/out" || fail "$(cat "$TMP/out")"
[[ ! -e $TMP/f ]] || fail "left behind"
