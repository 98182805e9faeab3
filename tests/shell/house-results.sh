# SPDX-License-Identifier: MIT
# Each recorded measurement is compact, and says the commit that it was taken at, which there is.
# Those that are older than the code they measure are named: measuring again is for whoever has a
# quiet machine.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq git

cd "$WEFT_SRC"
git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || skip "there is no history here"
[[ $(git rev-parse --is-shallow-repository) = false ]] || skip "the history here is cut off"

bad=0
wrong() {
	echo "$*"
	bad=1
}
# measured_by FILE: the code that it measures, beside weft's own
measured_by() {
	case $1 in
	*/block-devices* | */device-parts*) echo perf/block-devices perf/peers/block-devices.sh \
		perf/peers/contestants.sh ;;
	*/swap*) echo perf/swap perf/peers/swap* perf/peers/contestants.sh ;;
	*/curves*) echo perf/curves ;;
	*/push*) echo perf/push perf/peers/line perf/peers/positional.py ;;
	*/methods*) echo perf/methods perf/bench perf/peers/line ;;
	*/quic*) echo perf/quic perf/peers/line ;;
	*/mirror*) echo perf/mirror perf/peers/line ;;
	*/move*) echo perf/move perf/peers/line perf/peers/qemu-mirror.py ;;
	*/map*) echo perf/map ;;
	*/pool*) echo perf/pool ;;
	*/latency*) echo perf/latency perf/peers/line ;;
	*) echo perf/harness perf/peers perf/suites ;;
	esac
}
for json in perf/results/*.json; do
	commit=$(jq -r '.commit // .run.commit // ""' "$json")
	at=${commit%%,*}
	if [[ ! $at =~ ^[0-9a-f]{12}$ ]]; then
		wrong "$json does not say its commit: '$commit'"
		continue
	elif ! git merge-base --is-ancestor "$at" HEAD 2>/dev/null; then
		wrong "$json: there is no commit $at in our history"
		continue
	fi
	(($(wc -l <"$json") <= 150)) || wrong "$json is not compact: perf/harness/lines.jq"
	grep -q "$at" "${json%.json}.md" ||
		wrong "${json%.json}.md does not have the commit of $json"
	# shellcheck disable=SC2046 # a list
	later=$(git log --format=%h "$at..HEAD" -- fabric transports nbd-bridge $(measured_by "$json") \
		':!fabric/man' ':!*.md' ':!fabric/packages' | wc -l)
	((later == 0)) ||
		echo "NOTE: $json is older than what it measures, by $later changes since $at"
done
exit $bad
