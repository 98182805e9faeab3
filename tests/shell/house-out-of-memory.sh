# SPDX-License-Identifier: MIT
# Whichever of a program's first allocations fails, the program says so and fails, or does without;
# a bridge of which every second one fails ends when it is told to.
# presets: dev release
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

preload=$WEFT_BUILD/lib/libfail-allocations.so
[[ -e $preload ]] || fail "$preload was not built"

# without_nth N COMMAND…
without_nth() {
	local status=0
	WEFT_FAIL_NTH=$1 LD_PRELOAD=$preload timeout 30 "${@:2}" >"$TMP/out" 2>"$TMP/err" \
		</dev/null || status=$?
	((status < 124)) ||
		fail "without its allocation $1, ${*:2} ended with $status: $(cat "$TMP/err")"
	((status == 0)) || [[ -s $TMP/err ]] ||
		fail "without its allocation $1, ${*:2} failed without a word"
}
serve=(weft-serve --listen 127.0.0.1:1x --memory a=4K --memory b=4K --file "c=$TMP/none")
attach=(weft-attach --socket "$TMP/s" --cache 32M --cache-file "$TMP/cache"
	--pull-order "$TMP/none" weft://127.0.0.1:1/a weft://127.0.0.1:2/b --lanes 0)
for ((n = 1; n <= 40; n++)); do
	without_nth $n "${serve[@]}"
	without_nth $n "${attach[@]}"
	without_nth $n weft-detach nobody
	without_nth $n weft-reset nobody
	without_nth $n weft-rescue nobody "$TMP/none"
	without_nth $n weft-move weft://127.0.0.1:1/r weft://127.0.0.1:1x
	without_nth $n weft-move weft://127.0.0.1:1/r weft://127.0.0.1:2/s
	without_nth $n weft-status
	without_nth $n weft-bench weft://127.0.0.1:1/r --json
done
# Beyond the 40th it is libnbd's turn, which asserts that there is memory for its messages.
start_donor --memory r=16M --memory s=16M
for ((n = 1; n <= 30; n++)); do
	without_nth $n weft-list "weft://127.0.0.1:$PORT"
done

for how in "" "--cache 16M"; do
	# shellcheck disable=SC2086 # words
	WEFT_FAIL_EVERY=2 WEFT_FAIL_WHEN=$TMP/short LD_PRELOAD=$preload weft-attach "$URI" \
		--socket "$TMP/s" $how >/dev/null || fail "attach"
	pid=$(weft status r --json | jq '.attachments[0].pid')
	: >"$TMP/short"
	kill "$pid"
	wait_for -t 10 gone "$pid"
	rm "$TMP/short"
done
exit 0
