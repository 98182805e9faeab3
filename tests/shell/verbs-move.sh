# SPDX-License-Identifier: MIT
# tier: long
# timeout: 500
# presets: dev asan
# A region moves between two donors in the testbed while borrowers have it over RDMA.  Their writes
# go over RDMA until the region is frozen, none is lost, and they are back on RDMA at the other
# donor; also if the borrower is killed meanwhile, if it writes too fast, and if it cannot report.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool fio jq nbdcopy

in_testbed --timeout 480 <<'END'
start_donor --listen "$RDMA_IP:7001" --allow-insecure --lease 8 --memory a=16M --memory b=16M \
	--memory c=8M --memory p=16M --memory r=4M --memory s=16M
giver=$DONOR_LOG giver_pid=$DONOR_PID
start_donor --listen "$RDMA_IP:7002" --allow-insecure --lease 8 --take 128M
taker=$DONOR_LOG
cleanup_add 'weft status; tail -n 20 "$giver" "$taker" "$TMP"/moved* "$TMP"/writer*'
over() { # NAME TRANSPORT PORT [PLACE]
	weft status --json "$1" | jq -e --arg t "$2" --arg p "$3" --arg to "${4:-}" \
		'.attachments[0].donors[0] | .transport == $t and (.uri | contains(":" + $p + "/"))
		and (.moving_to // "" | contains($to))' >/dev/null
}
attach() { # NAME [OPTION…]
	weft attach "weft://$RDMA_IP:7001/$1" --name "$1" --socket "$TMP/$1" --lanes 1 "${@:2}" \
		>"$TMP/attached-$1" 2>&1 || fail "$(cat "$TMP/attached-$1")"
	wait_for -t 60 over "$1" rdma 7001
}
write_to() { # NAME RATE [OPTION…]
	python3 "$WEFT_SRC/tests/support/checked-writer.py" "$TMP/$1" "$TMP/stop-$1" 1 "${@:2}" \
		>"$TMP/writer-$1" 2>&1 &
	writer=$!
	wait_for -t 60 test -e "$TMP/stop-$1.began"
}
move() { # NAME BANDWIDTH: in the background
	exec weft move "weft://$RDMA_IP:7001/$1" "weft://$RDMA_IP:7002" --bandwidth "$2" \
		>"$TMP/moved-$1" 2>&1
}
ends_well() { # NAME
	touch "$TMP/stop-$1"
	wait "$writer" || fail "the writer of $1"
	cat "$TMP/writer-$1"
}
sent_to_tcp() { grep "region '$1' moves .*over TCP, where" "$giver"; }

echo "== a writer stays on RDMA until the region is frozen, and is back on it"
attach a
write_to a 10
move a 3M &
mover=$!
wait_for -t 60 over a rdma 7001 :7002/
# Only while the region moves.
wait $mover || fail "it did not move"
cat "$TMP/moved-a"
! sent_to_tcp a || fail "it was sent to TCP"
grep -q "region 'a' is read from weft://$RDMA_IP:7001/a over RDMA" "$taker" ||
	fail "the taker did not read over RDMA"
wait_for -t 90 over a rdma 7002
ends_well a
weft detach a

echo "== a borrower is killed in the midst of it"
attach b
write_to b 100 --patience 100
move b 2M &
mover=$!
wait_for -t 60 over b rdma 7001 :7002/
sleep 1 # of writes
kill -KILL "$(weft status --json b | jq .attachments[0].pid)"
wait $mover || fail "it did not move"
! sent_to_tcp b || fail "it was sent to TCP"
attach_again() {
	weft attach "weft://$RDMA_IP:7001/b" --name b --socket "$TMP/b" >"$TMP/attached-b" 2>&1
}
wait_for -t 60 attach_again
over b tcp 7002 || over b rdma 7002 || fail "it is not there"
ends_well b
weft detach b

echo "== who writes as fast as it is copied is held back, over TCP"
attach c
timeout 200 fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/c" --rw=randwrite --bs=4k \
	--size=8M --iodepth=8 --time_based --runtime=40 --verify=crc32c --verify_backlog=64 \
	--verify_fatal=1 --minimal >"$TMP/writer-c" 2>&1 &
writer=$!
is_written() { weft status --json c | jq -e '.attachments[0].written_bytes > 1e6' >/dev/null; }
wait_for -t 60 is_written
move c 6M &
mover=$!
wait_for -t 90 sent_to_tcp c
wait $mover || fail "it did not move"
cat "$TMP/moved-c"
wait "$writer" || fail "fio"
wait_for -t 90 over c rdma 7002
weft detach c

echo "== the taker serves before it has it, and reads over RDMA; then its borrower is back there"
attach p
write_to p 50
weft move "weft://$RDMA_IP:7001/p" "weft://$RDMA_IP:7002" --bandwidth 4M --post-copy \
	>"$TMP/moved-p" 2>&1 || fail "it did not move"
grep -q "region 'p' is read from weft://$RDMA_IP:7001/p over RDMA" "$taker" ||
	fail "the taker did not read over RDMA"
wait_for -t 90 over p rdma 7002
ends_well p
weft detach p

echo "== another implementation, that cannot report, and then can"
"$WEFT_BUILD/tests/second-borrower-rdma" "$RDMA_IP" 7001 moving >"$TMP/writer-second" &
second=$!
says() { [[ $(grep -cx "$1" "$TMP/writer-second") = "$2" ]]; }
wait_for -t 60 says "move it" 1
move r 256K &
mover=$!
wait_for -t 60 says "call it off" 1
kill -TERM $mover
! wait $mover || fail "it was not called off"
wait_for -t 60 says "move it" 2
move r 512K &
mover=$!
wait $second || fail "the second borrower"
wait $mover || fail "it did not move"
cat "$TMP/writer-second"
{
	yes m | tr -d '\n' | head -c 4096
	head -c $((320 * 1024 - 4096)) /dev/zero
	yes m | tr -d '\n' | head -c 100
	head -c $((4 * 1024 * 1024 - 320 * 1024 - 100)) /dev/zero
} >"$TMP/expected" 2>/dev/null || :
is_free() { nbdcopy "nbd://$RDMA_IP:7002/r" "$TMP/got"; }
wait_for -t 60 is_free
cmp "$TMP/got" "$TMP/expected" || fail "other bytes"

echo "== a reader knows where it goes before the giver is gone"
attach s --shared
move s 3M &
mover=$!
wait_for -t 60 over s rdma 7001 :7002/
wait $mover || fail "it did not move"
kill -KILL "$giver_pid"
nbdcopy "nbd+unix:///?socket=$TMP/s" null: || fail "the reader"
wait_for -t 90 over s rdma 7002
weft detach s
END
