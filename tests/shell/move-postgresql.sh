# SPDX-License-Identifier: MIT
# tier: long
# presets: dev asan
# timeout: 900
# processors: 2
# PostgreSQL's data are on a file system in a region that moves to another donor, and back, under
# pgbench: no transaction fails, the sums are right, and so are all checksums and indexes.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
pg=/usr/lib/postgresql/15/bin
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
[[ $EUID = 0 ]] || skip "loop devices need root"
need_tool jq losetup mkfs.ext4 e2fsck psql setpriv "$pg/initdb" "$pg/pgbench" "$pg/pg_checksums"

seconds=${WEFT_SECONDS:-30}
start_donor --take 512M --listen 127.0.0.1:0
there=weft://$(sed -n 's/^listening on //p' "$DONOR_LOG")
start_donor --memory db=192M --take 512M
here=weft://127.0.0.1:$PORT
weft attach "$here/db" --mount "$TMP/file" >"$TMP/attached"
cleanup_add "losetup -j '$TMP/file' | cut -d: -f1 | xargs -r losetup -d"
loop=$(losetup --find --show --direct-io=on "$TMP/file") || skip "no loop device"
mkfs.ext4 -q "$loop"
chmod 711 "$TMP"
mkdir "$TMP/mnt" "$TMP/sockets"
cleanup_add "! mountpoint -q '$TMP/mnt' || umount '$TMP/mnt'"
mount "$loop" "$TMP/mnt"
mkdir "$TMP/mnt/db"
chown 65534:65534 "$TMP/mnt/db" "$TMP/sockets"

# It does not run as root.  In a directory that it may be in.
cd /
db() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
sql() { db psql -XAtq -v ON_ERROR_STOP=1 -h "$TMP/sockets" -U test postgres -c "$1"; }
db "$pg/initdb" -k -A trust -U test -D "$TMP/mnt/db" >"$TMP/initdb" || fail "$(cat "$TMP/initdb")"
# Of what it reads it keeps little.
db "$pg/pg_ctl" -D "$TMP/mnt/db" -w -t 120 -l "$TMP/sockets/log" -o "-k $TMP/sockets \
	-c listen_addresses= -c shared_buffers=1MB -c max_wal_size=32MB" start >"$TMP/start" ||
	fail "$(cat "$TMP/start" "$TMP/sockets/log")"
cleanup_add "db $pg/pg_ctl -D $TMP/mnt/db -m immediate stop >/dev/null 2>&1"
db "$pg/pgbench" -i -q -s 3 -h "$TMP/sockets" -U test postgres >"$TMP/init" 2>&1 ||
	fail "$(cat "$TMP/init")"
db "$pg/pgbench" -c 4 -T "$seconds" -h "$TMP/sockets" -U test postgres >"$TMP/bench" 2>&1 &
bench=$!
moves=0
for ((i = 0; ; i++)); do
	ways=("$here" "$there")
	weft move --json --bandwidth 40M "${ways[i % 2]}/db" "${ways[(i + 1) % 2]}" >"$TMP/moved" ||
		fail "it does not move: $(cat "$TMP/moved")"
	! gone "$bench" || break
	jq -r 'select(.phase == "done") | "moved in \(.seconds) s, \(.round) rounds, " +
		"\(.copied_bytes / 1048576) MiB copied, frozen for \(.downtime_s * 1000) ms"' \
		"$TMP/moved"
	moves=$((moves + 1))
	sleep 1
done
wait "$bench" || fail "pgbench: $(cat "$TMP/bench" "$TMP/sockets/log")"
((moves >= 2)) || fail "only $moves moves"
grep -E 'transactions actually|failed|tps' "$TMP/bench"
done=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$TMP/bench")
((done > 50)) || fail "$(cat "$TMP/bench")"
[[ $(sql "select count(*) from pgbench_history") = "$done" ]] || fail "not $done in its history"
[[ $(sql "select sum(delta) = (select sum(abalance) from pgbench_accounts)
	and sum(delta) = (select sum(bbalance) from pgbench_branches)
	and sum(delta) = (select sum(tbalance) from pgbench_tellers)
	from pgbench_history") = t ]] ||
	fail "the sums differ"
sql "create extension amcheck"
sql "select bt_index_check(c.oid, true) from pg_class c join pg_am a on a.oid = c.relam
	where c.relkind = 'i' and a.amname = 'btree'" >/dev/null || fail "an index is wrong"
sql "select v.* from pg_class c, verify_heapam(c.oid) v where c.relkind = 'r'" >"$TMP/heap"
[[ ! -s $TMP/heap ]] || fail "$(cat "$TMP/heap")"
db "$pg/pg_ctl" -D "$TMP/mnt/db" -w -t 120 stop >/dev/null || fail "$(cat "$TMP/sockets/log")"
db "$pg/pg_checksums" --check -D "$TMP/mnt/db" | grep -E 'Blocks|Bad' | tee "$TMP/sums"
grep -qx 'Bad checksums: *0' "$TMP/sums" || fail "pg_checksums"
! grep -E 'ERROR|PANIC|FATAL' "$TMP/sockets/log" || fail "PostgreSQL complains"
umount "$TMP/mnt"
losetup -d "$loop"
weft status --json db | jq -e '.attachments[0].errors == 0' >/dev/null || fail "$(weft status db)"
wait_for weft detach db
# Without the bridge and its caches.
ways=("$here" "$there")
weft pull "${ways[(moves + 1) % 2]}/db" "$TMP/copy" >/dev/null || fail "it is not where it moved"
e2fsck -fn "$TMP/copy" >"$TMP/fsck" 2>&1 || fail "$(cat "$TMP/fsck")"
echo "$moves moves, $done transactions"
