# SPDX-License-Identifier: MIT
# tier: long
# timeout: 400
# presets: dev
# Three copies under fio verify while a donor is killed and comes back, with its memory and without,
# falls silent, and the bridge is killed with copies that are behind: no error, no wrong byte, and a
# copy that comes back gets what changed.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"
need_tool fio

export COPY_BYTES=64M
socket="nbd+unix:///?socket=$TMP/s"
for donor in a b c; do lend "$donor"; done
mirror a b c -- --dead-timeout 8 || fail "$(cat "$TMP/err")"

under_fio() { # FUNCTION…: while fio writes and verifies
	fio --name=v --ioengine=nbd --uri="$socket" --rw=randrw --bsrange=4k-64k --iodepth=16 \
		--numjobs=2 --size=32M --offset_increment=32M --time_based --runtime=20 \
		--verify=crc32c --verify_state_save=0 --verify_fatal=1 --verify_backlog=256 \
		--group_reporting >"$TMP/fio" 2>&1 &
	local fio=$! before
	before=$(status_of .requests.write)
	is_used() { (($(status_of .requests.write) > before + 200)); }
	wait_for is_used
	"$@"
	wait "$fio" || fail "$*: fio: $(tail -5 "$TMP/fio") $(weft status m)"
	wait_for -t 60 is_whole
	weft verify m >"$TMP/out" || fail "$*: $(cat "$TMP/out")"
	jq -e '.attachments[0].errors == 0' <(weft status m --json || :) >/dev/null ||
		fail "$*: $(weft status m)"
}
comes_back() {
	lose b
	wait_for is_degraded
	lend b
}
comes_back_empty() {
	forget c
	wait_for is_degraded
	lend c
}
falls_silent() {
	kill -STOP "${COPY_PID[a]}"
	wait_for -t 30 is_degraded
	kill -CONT "${COPY_PID[a]}"
}
under_fio comes_back
under_fio comes_back_empty
under_fio falls_silent

# The bridge is killed while a copy is behind.
random_file "$TMP/data" $((8 << 20))
lose b
wait_for is_degraded
qemu-io -f raw -t none "$socket" -c "write -s $TMP/data 1M 8M" >"$TMP/io" || fail "$(cat "$TMP/io")"
kill_bridge
lend b
mirror a b c -- --dead-timeout 8 || fail "$(cat "$TMP/err")"
nbdcopy "$socket" "$TMP/back"
cmp -n $((8 << 20)) -i 0:$((1 << 20)) "$TMP/data" "$TMP/back" || fail "other bytes"
wait_for -t 60 is_whole
weft verify m >"$TMP/out" || fail "$(cat "$TMP/out")"
detach
