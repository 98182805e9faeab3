# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# processors: 2
# A stock initiator's host with several logins: what one path writes the others read, a path that
# goes takes nothing from those that stay, each has reservations of its own; another host is
# refused as often as it tries, under load too, until the last path is gone, and then the first is,
# by its old line.  A reader beside them reads.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool python3 sg_persist

in_testbed --timeout 860 --memory 2G <<'END'
. tests/srp.sh
srp_modules reconnect_delay=1
guid=$(cut -d : -f 5- /sys/class/infiniband/rxe0/ports/1/gids/0 | tr -d :)
id() { echo "$(printf %016x "$1")$guid"; }
hosts=(--srp-host "db1=$(id 1),$(id 2),$(id 3),$(id 4)" --srp-host "db2=$(id 7)"
	--srp-host "db3=$(id 8),ro")
start_donor --listen 127.0.0.1:10809 --srp "$RDMA_IP:5555" --allow-insecure --memory r=32M \
	"${hosts[@]}"
line=$(srp_line r)
declare -A disk rport sg
login() { # ID
	srp_login_again "$line,initiator_ext=$(printf %016x "$1"),ch_count=2"
	disk[$1]=$DISK rport[$1]=$RPORT sg[$1]=$SG
}
logout() { DISK=${disk[$1]} RPORT=${rport[$1]} srp_logout; }
refused() { # ID PATTERN
	! srp_login "$line,initiator_ext=$(printf %016x "$1")" || fail "host $1 was let in"
	# What it said a moment ago the donor does not repeat.
	grep -q "$2" "$DONOR_LOG" || fail "not '$2': $(cat "$DONOR_LOG")"
}
login 1
logout 1
donor_uses

echo "== four paths of one host: each reads what another wrote"
for i in 1 2 3 4; do login $i; done
for i in 1 2 3 4; do
	DISK=${disk[$i]} disk_io write "$TMP/notes" 48 5 3 24
	DISK=${disk[$((i % 4 + 1))]} disk_io check "$TMP/notes" 48 5
done
weft status | grep "over srp"
weft status | grep -q "'db1'.* 8 connections" || fail "not one host's: $(weft status)"

echo "== the same path twice is one"
! srp_login "$line,initiator_ext=$(printf %016x 2)" || fail "twice"
DISK=${disk[2]} disk_io check "$TMP/notes" 48 5

echo "== another host is refused, under load, and a reader reads"
DISK=${disk[1]}
disk_load "$TMP/notes" 48 5 4
for ((i = 0; i < 8; i++)); do refused 7 "is in use by host 'db1'"; done
login 8
[[ $(blockdev --getro "${disk[8]}") = 1 ]] || fail "a reader may write"
dd if="${disk[8]}" of="$TMP/read" bs=64k count=16 iflag=direct status=none
! dd if=/dev/zero of="${disk[8]}" bs=4k count=1 oflag=direct status=none 2>/dev/null ||
	fail "a reader wrote"

echo "== paths go under the load of another"
logout 2
logout 3
touch "$TMP/notes.stop"
disk_load_ends "$TMP/notes" 0
for i in 1 4; do DISK=${disk[$i]} disk_io check "$TMP/notes" 48 5; done
logout 8

echo "== a reservation is a path's: another of the host has none"
sg_persist --out --register --param-sark=0xa1 "${sg[1]}" >/dev/null || fail "register"
sg_persist --out --register --param-sark=0xa4 "${sg[4]}" >/dev/null || fail "register"
sg_persist --out --reserve --param-rk=0xa1 --prout-type=1 "${sg[1]}" >/dev/null || fail "reserve"
! timeout 60 dd if=/dev/zero of="${disk[4]}" bs=4k count=1 oflag=direct status=none 2>/dev/null ||
	fail "it wrote beside a reservation of writes"
DISK=${disk[1]} disk_io write "$TMP/notes" 48 5 2 12
DISK=${disk[4]} disk_io check "$TMP/notes" 48 5
sg_persist --out --preempt --param-rk=0xa4 --param-sark=0xa1 --prout-type=1 "${sg[4]}" \
	>/dev/null || fail "preempt"
sg_persist --in --read-reservation "${sg[4]}" | tee "$TMP/pr"
grep -q 'Key=0xa4' "$TMP/pr" || fail "its reservation"
DISK=${disk[4]} disk_io write "$TMP/notes" 48 5 2 12
sg_persist --out --clear --param-rk=0xa4 "${sg[4]}" >/dev/null || fail "clear"

echo "== the last path holds the region, and then it is another host's"
logout 1
refused 7 "is in use by host 'db1'"
DISK=${disk[4]} disk_io check "$TMP/notes" 48 5
logout 4
donor_as_before
login 7
DISK=${disk[7]} disk_io check "$TMP/notes" 48 5
DISK=${disk[7]} disk_io write "$TMP/notes" 48 5 2 12
refused 1 "id_ext .* is over"
logout 7
refused 1 "id_ext .* is over"
kill "$DONOR_PID"
wait "$DONOR_PID" || fail "the donor's end: $?"
END
echo "ok: several logins of one host, and one host"
