# SPDX-License-Identifier: MIT
# timeout: 240
# presets: dev
# processors: 2
# When a machine of the testbed ends, pages that are swapped to a donor come back before the bridge
# and the donor end, as by the order of weft-swap@.service: nobody reads one in vain.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq mkswap wipefs

cat >"$TMP/inside" <<'END'
set -eu
export WEFT_RUN_DIR=/run/weft
mkdir -m 700 /run/weft
mkdir /sys/fs/cgroup/job
sysctl -q vm.min_free_kbytes=16384
weft-serve --listen "$RDMA_IP" --allow-insecure --memory r=32M >/run/donor 2>&1 &
for ((i = 0; i < 600; i++)); do ! grep -qx ready /run/donor || break; sleep 0.1; done
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
weft swap on "weft://$RDMA_IP/r" --force --lanes 1 --cgroup /job --memory-high 8M --transport tcp
mkfifo /run/hold
bash -c 'echo $$ >/sys/fs/cgroup/job/cgroup.procs && exec "$0" 20 2 100' \
	"$WEFT_BUILD/tests/swap-load" <>/run/hold >/run/load &
for ((i = 0; i < 600; i++)); do ! grep -q held /run/load || break; sleep 0.1; done
cat /proc/swaps
END
"$WEFT_SRC/tests/testbed/run" --kernel-log --timeout 200 -- bash "$TMP/inside" >"$TMP/out" 2>&1 ||
	fail "exit status $?: $(tail -n 40 "$TMP/out")"
grep -E '^testbed: node 1: [1-9][0-9]{3,} KiB came back from swap, and 0 did not$' "$TMP/out" ||
	fail "nothing came back: $(tail -n 40 "$TMP/out")"
! grep -E 'I/O error|Read-error on swap' "$TMP/out" || fail "somebody read in vain"
