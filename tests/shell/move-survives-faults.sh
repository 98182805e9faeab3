# SPDX-License-Identifier: MIT
# At a step of a move somebody is killed, or stopped for longer than the lease, or a line is cut, or
# the move is called off, each at random: one donor has the region in the end, with every write that
# was answered, and its borrower has no error.  (move-survives-faults-long: all of them.)
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../move-faults.sh"
in_net_of_its_own "${BASH_SOURCE[0]}"
. "${BASH_SOURCE[0]%/*}/../lib.sh"

seed=${WEFT_SEED:-$RANDOM}
echo "seed $seed"
RANDOM=$seed
machines
for what in abort 'kill-[mb]' pause cut; do
	mapfile -t some < <(printf '%s\n' "${FAULTS[@]}" | grep "^$what")
	case_of "${STEPS[RANDOM % ${#STEPS[@]}]}" "${some[RANDOM % ${#some[@]}]}" 3 blackhole
done
