# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# A job swaps to a donor, over TCP and RDMA, with the ublk and the nbd driver: right bytes, its
# group limited and given back; status; `off` under load, interrupted, repeated; what fails or is
# interrupted on the way is undone; a bridge that was killed; what the preflight refuses of a path.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap wipefs

in_testbed --timeout 850 <<'END'
. tests/swap.sh
make_group
mkdir /sys/fs/cgroup/other
sysctl -q vm.min_free_kbytes=16384
start_donor --listen "$RDMA_IP:0" --allow-insecure --memory r=192M --memory r2=64M --lease 20
base=weft://$RDMA_IP:$PORT
# The donor is this machine, and rxe is software: not for use, and good enough to look at weft swap.
on() {
	weft swap on "$base/r" --force --lanes 1 "$@" >"$TMP/on" 2>"$TMP/err" ||
		fail "on $*: $(cat "$TMP/err")"
}
setting() { cat "$group/$1"; }
nothing_is_left() { # WHAT
	[[ ! $(swaps) ]] || fail "$1: $(swaps)"
	[[ ! $(compgen -G "$WEFT_RUN_DIR/swap-*.json") ]] ||
		fail "$1: $(cat "$WEFT_RUN_DIR"/swap-*.json)"
	[[ $(weft status --json | jq '.attachments | length') = 0 ]] || fail "$1: $(weft status)"
	[[ $(setting memory.high) = max && $(setting memory.swap.max) = max ]] ||
		fail "$1: $(setting memory.high) $(setting memory.swap.max)"
	[[ $(cat /sys/fs/cgroup/other/memory.swap.max) = max ]] ||
		fail "$1: the other group is limited"
}

for way in ublk/tcp nbd/rdma; do
	echo "== $way"
	on --device-kind "${way%/*}" --transport "${way#*/}" --cgroup /job --memory-high 12M \
		--exclusive
	cat "$TMP/on"
	[[ $(setting memory.high) = $((12 << 20)) ]] || fail "memory.high $(setting memory.high)"
	[[ $(cat /sys/fs/cgroup/other/memory.swap.max) = 0 ]] || fail "the other group may swap"
	start_load 32 4 2000
	wait_for -t 120 held
	weft swap status | tee "$TMP/status"
	weft swap status --json >"$TMP/json"
	wrong=$(jq -r --arg of swaps --arg keys no -f tests/support/status-schema.jq "$TMP/json")
	[[ ! $wrong ]] || fail "$wrong"
	jq -e '.swaps[0] | .spaces[0].active and .spaces[0].used_bytes > 8e6 and
		.spaces[0].pages_out > 2000 and .spaces[0].pages_in > 1000 and
		.spaces[0].state == "ready" and .spaces[0].swap.locked_bytes > 0 and
		.spaces[0].donors[0].lost_bytes == .spaces[0].used_bytes and
		.spaces[0].donors[0].plaintext and
		.group.path == "'"$group"'" and .exclusive' "$TMP/json" >/dev/null ||
			fail "$(cat "$TMP/json")"
	jq -e '.processes[0].name == "swap-load"' "$TMP/json" >/dev/null ||
		fail "$(cat "$TMP/json")"
	weft swap off r 2>"$TMP/err" || fail "off: $(cat "$TMP/err")"
	cat "$TMP/err"
	end_load
	nothing_is_left "$way"
done

echo "== off, interrupted and repeated"
on --cgroup /job --memory-high 12M
start_load 32 4 200
wait_for -t 120 held
kill -STOP "$DONOR_PID" # so that it takes its time
weft swap off r >"$TMP/out" 2>"$TMP/err" &
off=$!
draining() { grep -q 'to bring back' "$TMP/err"; }
wait_for -t 30 draining
! weft swap off r >"$TMP/out2" 2>&1 || fail "two at a time"
grep -q "another weft swap is at work, pid $off" "$TMP/out2" || fail "$(cat "$TMP/out2")"
kill -TERM "$off" # a shell has INT ignored for what is in the background
kill -CONT "$DONOR_PID"
status=0
wait "$off" || status=$?
[[ $status = 1 ]] || fail "interrupted: exit status $status $(cat "$TMP/err")"
cat "$TMP/err"
grep -q 'interrupted: /dev/.* is swap space still, with .* nothing is lost; .* weft swap off r' \
	"$TMP/err" || fail "$(cat "$TMP/err")"
[[ $(swaps) && $(setting memory.high) = $((12 << 20)) ]] ||
	fail "not as it was: $(swaps) $(setting memory.high)"
weft swap off --all
end_load
nothing_is_left "interrupted"

echo "== memory does not suffice"
on --cgroup /job --memory-high 12M
start_load 24 2 100
wait_for -t 120 held
echo $((16 << 20)) >"$group/memory.max"
! weft swap off r >"$TMP/out" 2>&1 || fail "into a group without room"
grep -q "$group has .* in swap, and its memory.max leaves room for" "$TMP/out" ||
	fail "$(cat "$TMP/out")"
echo max >"$group/memory.max"
weft swap off r
end_load
nothing_is_left "memory"

echo "== several donors, and what is undone"
weft swap on "$base/r" "$base/r2" --force --lanes 1 --name two --size 32M --priority 77 \
	>"$TMP/on" 2>&1 ||
	fail "$(cat "$TMP/on")"
cat "$TMP/on"
[[ $(swaps | awk '{print $3, $5}' | sort | uniq -c | xargs) = "2 32764 77" ]] || fail "$(swaps)"
! weft swap on "$base/r" --force --name two >"$TMP/out" 2>&1 || fail "twice"
grep -q "there is a swap 'two' already" "$TMP/out" || fail "$(cat "$TMP/out")"
! weft swap on "$base/r2" --force --lanes 1 --name three >"$TMP/out" 2>&1 || fail "held by another"
grep -q 'what was begun is undone' "$TMP/out" || fail "$(cat "$TMP/out")"
weft swap off two
nothing_is_left "two"
weft attach "$base/r2" --device >/dev/null
mkfs.ext4 -q "$(weft status --json | jq -r '.attachments[0].device')"
weft detach r2
! weft swap on "$base/r" "$base/r2" --lanes 1 --name two >"$TMP/out" 2>&1 || fail "not safe"
grep -q 'not safe: the donor of .* is this machine' "$TMP/out" || fail "$(cat "$TMP/out")"
nothing_is_left "a preflight"
! weft swap on "$base/r" "$base/r2" --force --lanes 1 --name two >"$TMP/out" 2>&1 ||
	fail "into a file system"
grep -q 'r2 has something in it (ext4), .* --new-contents' "$TMP/out" || fail "$(cat "$TMP/out")"
nothing_is_left "a file system"
weft attach "$base/r2" --device >/dev/null
dev=$(weft status --json | jq -r '.attachments[0].device')
[[ $(wipefs --no-act --noheadings --output TYPE "$dev") = ext4 ]] || fail "the file system is gone"
weft detach r2
weft swap on "$base/r2" --force --lanes 1 --new-contents >"$TMP/on" 2>&1 || fail "$(cat "$TMP/on")"
weft swap off r2
kill -STOP "$DONOR_PID"
weft swap on "$base/r" --force --lanes 1 >"$TMP/out" 2>&1 &
on=$!
attaching() { pgrep -x weft-attach; }
wait_for attaching >/dev/null
kill -TERM "$on"
kill -CONT "$DONOR_PID"
! wait "$on" || fail "not interrupted: $(cat "$TMP/out")"
grep -q 'what was begun is undone' "$TMP/out" || fail "$(cat "$TMP/out")"
nothing_is_left "interrupted while it attached"

echo "== the bridge is killed"
on --cgroup /job --memory-high 12M
kill -KILL "$(pgrep -x weft-attach)"
dead() { [[ $(weft swap status --json | jq -r '.swaps[0].spaces[0].state') = dead ]]; }
wait_for dead
weft swap status
weft swap off r
nothing_is_left "killed"

echo "== zswap, and what a path is refused for"
zswap=/sys/module/zswap/parameters/enabled
was=$(cat $zswap)
on --zswap
[[ $(cat $zswap) = Y ]] || fail "zswap is off"
weft swap off r
[[ $(cat $zswap) = "$was" ]] || fail "zswap is not as it was"
sysctl -q vm.min_free_kbytes=1000
on --transport tcp
grep -q 'not safe: vm.min_free_kbytes is 1000, and up to 4096 KiB' "$TMP/err" ||
	fail "$(cat "$TMP/err")"
weft swap off r
on --transport rdma
! grep -q min_free "$TMP/err" || fail "$(cat "$TMP/err")"
grep -q 'note: rxe0 is an RDMA device in software' "$TMP/err" || fail "$(cat "$TMP/err")"
weft swap off r
truncate -s 64M "$TMP/file"
stop_donor
start_donor --listen "$RDMA_IP:0" --allow-insecure --file "f=$TMP/file"
weft swap on "weft://$RDMA_IP:$PORT/f" --force --lanes 1 >"$TMP/out" 2>&1 ||
	fail "$(cat "$TMP/out")"
grep -q 'not safe: weft://.* is a file at the donor' "$TMP/out" || fail "$(cat "$TMP/out")"
weft swap off f
nothing_is_left "refusals"
stop_donor || fail "the donor's exit status: $?"
END
