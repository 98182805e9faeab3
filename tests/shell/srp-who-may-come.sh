# SPDX-License-Identifier: MIT
# tier: long
# timeout: 300
# processors: 2
# Who may have a region over SRP: one host that writes, under any of its identifiers; nobody without
# --allow-insecure; with keys the hosts that are listed, if plaintext is allowed; readers beside the
# writer.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

in_testbed --timeout 280 <<'END'
. tests/srp.sh
srp_modules
donor() {
	[[ -z ${DONOR_PID-} ]] || { kill "$DONOR_PID"; wait "$DONOR_PID" || :; }
	start_donor --listen 127.0.0.1:10809 --srp "$RDMA_IP:5555" --memory r=16M "$@"
}
refused() { # PATTERN LINE
	srp_login "$2" && fail "it was let in: $(cat "$DONOR_LOG")"
	grep -q "$1" "$DONOR_LOG" || fail "no '$1': $(cat "$DONOR_LOG")"
	echo "refused: $(grep -o "$1.*" "$DONOR_LOG" | tail -n 1)"
}

echo "== nobody, unless the donor lends to whoever comes"
donor
refused "over srp nobody proves who comes" "$(srp_line r)"

echo "== one host that writes"
donor --allow-insecure
line=$(srp_line r)
srp_login "$line" || fail "no login"
host=$SCSI_HOST disk=$DISK rport=$RPORT
refused "is in use by host" "$line,initiator_ext=0000000000000007"
weft attach "$URI" --socket "$TMP/s" --timeout 3 >"$TMP/out" 2>&1 &&
	fail "a bridge writes beside it"
grep -q "is in use by host" "$TMP/out" || fail "why: $(cat "$TMP/out")"
weft status | grep "over srp" || fail "no host in the status"
guid=$(weft status | sed -n "s/.*attachment '0\{16\}\([0-9a-f]*\)' .* over srp.*/\1/p")
[[ ${#guid} = 16 ]] || fail "no identifier in the status"
refused "there is no region with ioc_guid" "${line/ioc_guid=?/ioc_guid=0}"
refused "id_ext .* is over" "${line/id_ext=????/id_ext=0000}"
SCSI_HOST=$host DISK=$disk RPORT=$rport srp_logout
nobody_has() { ! weft status | grep -q "over srp"; }
wait_for nobody_has
srp_login "$line,initiator_ext=0000000000000007" || fail "not free after the logout"
srp_logout

echo "== hosts that are listed: both ids are one host, another reads"
donor --allow-insecure \
	--srp-host "db1=0000000000000001$guid,0000000000000002$guid" \
	--srp-host "db2=0000000000000003$guid,ro"
line=$(srp_line r)
refused "no --srp-host of this donor has" "$line,initiator_ext=0000000000000009"
srp_login "$line,initiator_ext=0000000000000001" || fail "db1 is not let in"
one=$RPORT first=$DISK
srp_login "$line,initiator_ext=0000000000000002" || fail "db1's second id is not let in"
two=$RPORT second=$DISK
srp_login "$line,initiator_ext=0000000000000003" || fail "db2 is not let in"
[[ $(blockdev --getro "$DISK") = 1 ]] || fail "db2 may write"
dd if=/dev/urandom of="$TMP/data" bs=1M count=1 status=none
dd if="$TMP/data" of="$first" oflag=direct bs=1M status=none
for disk in "$second" "$DISK"; do
	dd if="$disk" iflag=direct bs=1M count=1 status=none | cmp - "$TMP/data" ||
		fail "other bytes"
done
weft status | grep "over srp"
srp_logout
RPORT=$two DISK=$second srp_logout
RPORT=$one DISK=$first srp_logout

echo "== a donor with keys"
weft key new box --store "$TMP/keys" --out "$TMP/box.key" >/dev/null || fail "no key"
donor --keys "$TMP/keys" --srp-host "db1=$guid"
refused "a donor with keys lends to the hosts of --srp-host alone" "$(srp_line r)"
donor --keys "$TMP/keys" --rdma-plaintext
refused "a donor with keys lends to the hosts of --srp-host alone" "$(srp_line r)"
donor --keys "$TMP/keys" --rdma-plaintext --srp-host "db1=$guid"
srp_login "$(srp_line r)" || fail "the listed host is not let in: $(cat "$DONOR_LOG")"
srp_logout
kill "$DONOR_PID"
END
echo "ok: those who may come come"
