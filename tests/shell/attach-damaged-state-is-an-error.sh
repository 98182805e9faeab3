# SPDX-License-Identifier: MIT
# The state of a bridge that was killed is damaged, cut short, or of a newer weft: nobody knows what
# its device, file or socket remembers, so that nothing is attached in its place until it is given
# up by force.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

start_donor --memory r=8M --lease 1
state=$WEFT_RUN_DIR/attach-r.json
for how in damage cut newer; do
	weft attach "$URI" --socket "$TMP/s" >/dev/null || fail "attach"
	pid=$(weft status r --json | jq '.attachments[0].pid')
	kill -KILL "$pid"
	wait_for gone "$pid"
	case $how in
	damage) sed -i 's/"epoch": "./"epoch": "x/' "$state" ;;
	cut) truncate -s 200 "$state" ;;
	newer) sed -i 's/"version": 1/"version": 2/' "$state" ;;
	esac
	cp "$state" "$TMP/before"
	! weft attach "$URI" --socket "$TMP/s" >"$TMP/out" 2>&1 || fail "$how: attached"
	grep -q "cannot be believed.*weft detach --force r" "$TMP/out" ||
		fail "$how: $(cat "$TMP/out")"
	! weft detach r >"$TMP/out" 2>&1 || fail "$how: detached without force"
	grep -q "damaged, or of a newer weft.*weft detach --force r" "$TMP/out" ||
		fail "$how: $(cat "$TMP/out")"
	cmp "$state" "$TMP/before" || fail "$how: the state was changed"
	[[ $(weft status r) = *"dead: the bridge died, and its state is damaged"* ]] ||
		fail "$how: $(weft status r)"
	weft detach --force r >"$TMP/out" 2>&1 || fail "$how: $(cat "$TMP/out")"
	weft status --json | jq -e '.attachments == []' >/dev/null || fail "$how: left behind"
	wait_for weft attach "$URI" --socket "$TMP/s"
	weft detach r >/dev/null
done
