# SPDX-License-Identifier: MIT
# tier: long
# presets: dev asan
# timeout: 3600
# processors: 2
# Each fault of move-faults.sh at each step of a move, in an order, and for as long, as the seed
# says.  WEFT_SEEDS: how many seeds there are, each of which has its part of the cases (10);
# WEFT_SEED: the first; WEFT_CASES: of each part at most.
. "${BASH_SOURCE[0]%/*}/../move-faults.sh"
in_net_of_its_own "${BASH_SOURCE[0]}"
. "${BASH_SOURCE[0]%/*}/../lib.sh"

seed=${WEFT_SEED:-$RANDOM} seeds=${WEFT_SEEDS:-10}
echo "seeds $seed and the next $((seeds - 1))"
for step in "${STEPS[@]}"; do
	for fault in "${FAULTS[@]}"; do echo "$step $fault"; done
done >"$TMP/all"
# A shuffle that the seed alone decides.
RANDOM=$seed
while read -r line; do echo "$RANDOM$RANDOM $line"; done <"$TMP/all" |
	sort -n | cut -d ' ' -f 2- >"$TMP/cases"
# Past the lease; past the patience of a reader; past that of a giver.
times=(3 3 12 24) kinds=(blackhole unreachable)
machines
for ((part = 0; part < seeds; part++)); do
	RANDOM=$((seed + part))
	mapfile -t cases < <(awk -v n="$seeds" -v i="$part" 'NR % n == i' "$TMP/cases" |
		head -n "${WEFT_CASES:-1000}")
	for line in "${cases[@]}"; do
		case_of "${line% *}" "${line#* }" "${times[RANDOM % 4]}" "${kinds[RANDOM % 2]}"
	done
done
