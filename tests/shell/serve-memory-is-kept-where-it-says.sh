# SPDX-License-Identifier: MIT
# With a notification socket and no descriptor store behind it memory still outlives a crash; status
# says who keeps a region, or that nobody does; a holder that dies is replaced, however young it
# was.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io jq socat

kept_by() {
	weft status --json | jq -r '.donors[0].regions[0].kept_by'
}
kept() {
	[[ $(kept_by) = "$1" ]]
}
holder() {
	basename "$(ls "$WEFT_RUN_DIR"/hold-*.sock)" .sock | sed 's/hold-//'
}

says_kept() { # BY TEXT
	kept "$1" || fail "kept by $(kept_by)"
	weft status | grep >/dev/null "  region scratch, .*, $2\$" || fail "$(weft status)"
	weft status --prometheus |
		grep >/dev/null "^weft_donor_region_kept{.*region=\"scratch\",by=\"$1\"} 1\$" ||
			fail "$(weft status --prometheus)"
}

# A supervisor that takes notifications, and forgets what comes with them.
socat -u "UNIX-RECV:$TMP/notify" "OPEN:$TMP/notified,creat" &
wait_for test -S "$TMP/notify"
export NOTIFY_SOCKET=$TMP/notify
start_donor --memory scratch=4M
grep -q READY=1 "$TMP/notified" || fail "no notification came"
says_kept holder 'protected by the holder'
qemu-io -f raw "nbd://127.0.0.1:$PORT/scratch" -c 'write -P 0x42 0 4M' >/dev/null
stop_donor KILL || :
start_donor --memory scratch=4M --memory more=1M
qemu-io -f raw "nbd://127.0.0.1:$PORT/scratch" -c 'read -P 0x42 0 4M' |
	grep -q 'read 4194304/4194304' || fail "other bytes"

# The holder dies in its first seconds, twice: that is said, and then another has all regions.
another() {
	[[ $(holder) != "$old" ]] && kept holder
}
for round in 1 2; do
	old=$(holder)
	kill -KILL "$old"
	ended() {
		[[ $(grep -c 'a crash of this program would lose its memory now: weftholder ended; starting another' "$DONOR_LOG") = "$round" ]]
	}
	wait_for ended
	rm -f "$WEFT_RUN_DIR/hold-$old.sock"
	wait_for another
done
stop_donor KILL || :
start_donor --memory scratch=4M --memory more=1M
[[ $(grep -c '^recovered region' "$DONOR_LOG") = 2 ]] ||
	fail "the third holder does not have all: $(cat "$DONOR_LOG")"
qemu-io -f raw "nbd://127.0.0.1:$PORT/scratch" -c 'read -P 0x42 0 4M' |
	grep -q 'read 4194304/4194304' || fail "other bytes"
stop_donor

# A service of systemd's without a store: a holder would be ended with it.
sh -c 'SYSTEMD_EXEC_PID=$$ exec weft-serve --memory scratch=4M --listen 127.0.0.1:0' \
	>"$TMP/service" 2>&1 &
service=$!
wait_for grep -qx ready "$TMP/service"
grep -q 'a crash of this program loses its memory: .*FileDescriptorStoreMax=1024' "$TMP/service" ||
	fail "$(cat "$TMP/service")"
kept nobody || fail "kept by $(kept_by)"
kill "$service"
wait "$service" || fail "exit status $?"

# As the user wished.
start_donor --memory scratch=4M --keep 0
says_kept nobody 'unprotected: lost if the donor crashes'
stop_donor

# A file's contents are on its disk.
truncate -s 1M "$TMP/file"
start_donor --file "scratch=$TMP/file"
kept null || fail "kept by $(kept_by)"
! weft status | grep protected || fail "$(weft status)"
