# SPDX-License-Identifier: MIT
# A map of 8 GB with 128 MiB here: threads read and write all over it; each access finds what was
# written last, the donor has all of it in the end, and the process never has more than the bound
# and 5 %.  WEFT_SECONDS: how long in each mode; with 60 and more all of the map is used, and a
# million units leave it.
# presets: dev
# processors: 2
. "${BASH_SOURCE[0]%/*}/../lib.sh"

seconds=${WEFT_SECONDS:-4} stride=32 evicted=0
((seconds < 60)) || stride=1 evicted=1000000
for mode in 1 2; do
	start_donor --memory r=8G --keep 0
	said=$("$WEFT_BUILD/tests/map-bounded" -m $mode -t "$seconds" -e $evicted -s $stride \
		"$URI" 2>&1) || {
		[[ $said = *"userfaultfd"* ]] && skip "$said"
		fail "$said"
	}
	echo "$said"
	stop_donor || fail "the donor's exit status: $?"
done
