# SPDX-License-Identifier: MIT
# tier: long
# timeout: 1200
# presets: dev
# processors: 2
# The borrower's machine loses its power ($WEFT_CUTS times) while a program writes to a device with
# a write-back cache and flushes: the donor, another machine, has everything that was flushed.  The
# cache file dies with the machine.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool nbdcopy

cat >"$TMP/inside" <<'END2'
. tests/lib.sh
start_donor --listen "$TCP_IP:10809" --listen "$RDMA_IP:10809" --allow-insecure --memory r=64M \
	--lease 8
log=$WEFT_BUILD/tests/flush-log
node2 "mkdir -m 700 /run/weft; export WEFT_RUN_DIR=/run/weft; weft attach weft://$RDMA_IP:10809/r --transport $1 --device --device-kind $2 \
	--cache 16M --cache-file /tmp/cache >/tmp/out 2>&1 || { cat /tmp/out >&2; exit 1; }
	grep '^  transport' /tmp/out
	exec $log write \$(sed -n 's/^  device \([^ ]*\).*/\1/p' /tmp/out) $3" >"$TMP/flushed" 2>&1 &
writes() { grep -qx '[0-9]*' "$TMP/flushed"; }
wait_for -t 60 writes
grep transport "$TMP/flushed"
sleep "$(($4 / 1000)).$(printf %03d $(($4 % 1000)))"
monitor2 quit >/dev/null
wait $! || :
last=$(grep -x '[0-9]*' "$TMP/flushed" | tail -n 1)
# The dead one's lease has to end first.
copied() { nbdcopy "nbd://$TCP_IP/r" "$TMP/donor"; }
wait_for -t 40 copied
"$log" check "$TMP/donor" "$3" "$last"
! "$log" check "$TMP/donor" "$3" $((last + 10000)) >"$TMP/out" 2>&1 ||
	fail "the check finds nothing"
END2
cd "$WEFT_SRC"
RANDOM=${WEFT_SEED:=$$}
echo "WEFT_SEED=$WEFT_SEED"
ways=("rdma ublk" "tcp ublk" "rdma nbd" "tcp nbd")
for ((n = 0; n < ${WEFT_CUTS:-20}; n++)); do
	# shellcheck disable=SC2086 # two words
	"$WEFT_SRC/tests/testbed/run" --nodes 2 --timeout 120 \
		-- bash "$TMP/inside" ${ways[n % 4]} "$RANDOM" \
		$((RANDOM % 2000)) \
		>"$TMP/output" 2>&1 ||
			fail "cut $n, ${ways[n % 4]}: exit status $?: $(tail -n 30 "$TMP/output")"
	grep -q "transport ${ways[n % 4]% *}" "$TMP/output" ||
		fail "not over ${ways[n % 4]}: $(cat "$TMP/output")"
	echo "${ways[n % 4]}: $(tail -n 1 "$TMP/output")"
done
