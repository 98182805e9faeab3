# SPDX-License-Identifier: MIT
# presets: dev asan
# A block device as a region: its size, its data, zeros and discards through the block layer,
# durable flushes; not one that is in use.
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io losetup nbdinfo jq blockdev

loop() { # FILE [OPTION…]
	losetup --find --show "${@:2}" "$1" 2>/dev/null || skip "no loop devices here"
}
io() { # COMMAND…
	qemu-io -f raw "${@/#/-c}" "nbd://127.0.0.1:$PORT/d" >"$TMP/io" 2>&1 &&
		! grep -q 'failed\|error' "$TMP/io"
}
blocks() {
	stat -c %b "$TMP/disk"
}

truncate -s 8000512 "$TMP/disk" # no whole number of pages
dev=$(loop "$TMP/disk")
cleanup_add "losetup -d $dev"
fixed=$(free_port)
start_donor --file "d=$dev" --lease 4 --listen "127.0.0.1:$fixed"
grep -q "^region 'd': block device, 7.6" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
# Whoever holds it when its donor ends may answer from what it remembers as long as its lease lasts:
# nobody else gets it until then.
weft attach "$URI" --socket "$TMP/s" --name holder >/dev/null || fail "attach"
holder=$(weft status holder --json | jq '.attachments[0].pid')
kill -STOP "$holder"
stop_donor KILL || :
start_donor --file "d=$dev" --lease 4 --listen "127.0.0.1:$fixed"
! said=$(weft attach "$URI" --socket "$TMP/s2" --name early 2>&1) ||
	fail "granted although another may still remember"
[[ $said = *"may still answer from what it remembers; it is free in "* ]] || fail "$said"
kill -CONT "$holder"
weft detach --force holder >/dev/null 2>&1 || :
weft status --json |
	jq -e '.donors[0].regions[0] | .backing == "device" and .trouble == null' >/dev/null ||
		fail "$(weft status --json)"

wait_for io 'read 0 512'
[[ $(nbdinfo --size "nbd://127.0.0.1:$PORT/d") = 8000512 ]] || fail "size"
# Data, and that a flush gets it below the donor.
io 'write -P 1 0 7M' 'write -P 2 8000000 512' flush || fail "$(cat "$TMP/io")"
io 'read -P 1 0 7M' 'read -P 2 8000000 512' 'read -P 0 7M 64k' || fail "$(cat "$TMP/io")"
[[ $(head -c 7340032 "$TMP/disk" | tr -d '\1' | wc -c) = 0 ]] || fail "flushed, and not on the disk"
io 'write -P 3 7340031 2' flush 'read -P 3 7340031 2' 'read -P 1 7340000 31' ||
	fail "odd addresses: $(cat "$TMP/io")"

# Zeros exactly where they are to be, with blocks given back where there are whole ones.
before=$(blocks)
io 'write -z -u 1001 2000000' 'read -P 1 0 1001' 'read -P 0 1001 2000000' 'read -P 1 2001001 4096' \
	|| fail "$(cat "$TMP/io")"
(($(blocks) < before)) || fail "zeros took $(blocks) blocks of $before"
io 'write -z 3000001 70001' 'read -P 1 3000000 1' 'read -P 0 3000001 70001' \
	'read -P 1 3070002 512' || fail "$(cat "$TMP/io")"
io 'write -z 5000001 5' 'read -P 1 5000000 1' 'read -P 0 5000001 5' 'read -P 1 5000006 5' ||
	fail "$(cat "$TMP/io")"
before=$(blocks)
io 'discard 4000001 900000' 'read -P 1 4000000 1' 'read -P 1 4900001 512' || fail "$(cat "$TMP/io")"
(($(blocks) < before)) || fail "a discard took nothing away"

# Nobody else may write it meanwhile, nor we what another has.
! (exec 9<>"$dev" && flock -n 9) || fail "it can be locked"
sh -c "mkfs.ext4 -q '$dev'" >"$TMP/mkfs" 2>&1 && fail "somebody made a file system on it"
stop_donor || fail "exit status $?"
first=$(sed -n 's/^region .*epoch \([0-9a-f]*\) .*/\1/p' "$DONOR_LOG")
start_donor --file "d=$dev"
[[ $(sed -n 's/^region .*epoch \([0-9a-f]*\) .*/\1/p' "$DONOR_LOG") != "$first" ]] ||
	fail "nobody knows what happened to the device meanwhile"
wait_for io 'read -P 2 8000000 512'

# One that becomes smaller.
truncate -s 4M "$TMP/disk"
losetup -c "$dev"
wait_for grep -q "became shorter: 4 MiB of 7.6" "$DONOR_LOG"
stop_donor

mkfs.ext4 -q -F "$dev"
mkdir "$TMP/mnt"
mount "$dev" "$TMP/mnt" || skip "nothing can be mounted here"
! weft-serve --file "d=$dev" >"$TMP/log" 2>&1 || fail "a mounted device"
umount "$TMP/mnt"
grep -q "cannot open file $dev: it is in use: mounted, or part of another device" "$TMP/log" ||
	fail "$(cat "$TMP/log")"

# One that can only be read; and none is found below a directory.
ro=$(loop "$TMP/disk" --read-only)
cleanup_add "losetup -d $ro"
start_donor --file "d=$ro"
grep -q "^region 'd': block device, 4 MiB, read-only" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
[[ $(nbdinfo --json "nbd://127.0.0.1:$PORT/d" | jq '.exports[0].is_read_only') = true ]] ||
	fail "writable"
stop_donor
mkdir "$TMP/dir"
cp -a "$ro" "$TMP/dir/node"
start_donor --directory "$TMP/dir"
! nbdinfo "nbd://127.0.0.1:$PORT/node" >/dev/null 2>&1 || fail "a device below a directory"
