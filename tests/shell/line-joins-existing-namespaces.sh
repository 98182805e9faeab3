# SPDX-License-Identifier: MIT
# A line's ends may be namespaces that there are, by process and by path, and lines by number meet
# in one of them.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_line
[[ $EUID = 0 ]] || skip "only root may enter a namespace that there is"

unshare --net sleep 60 &
middle=$!
in_another() { [[ $(readlink "/proc/$middle/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }
wait_for in_another
weft line --far "$middle" >"$TMP/one" &
one=$!
weft line --near "/proc/$middle/ns/net" --number 1 --delay 1ms >"$TMP/two" &
two=$!
for said in "$TMP/one" "$TMP/two"; do
	wait_for grep -qx ready "$said"
done
nsenter --net="/proc/$middle/ns/net" grep -oE 'line[0-9]+' /proc/net/dev | sort >"$TMP/devices"
[[ $(<"$TMP/devices") = $'line0\nline1' ]] || fail "in the middle: $(cat "$TMP/devices")"
grep -q '^near 198.18.0.1 2001:2::1 ' "$TMP/one" || fail "$(cat "$TMP/one")"
grep -q '^far 198.18.1.2 2001:2:0:1::2 ' "$TMP/two" ||
	fail "$(cat "$TMP/one" "$TMP/two")"
kill "$one" "$two"
wait "$one" "$two" || fail "exit status $?"
! nsenter --net="/proc/$middle/ns/net" grep line /proc/net/dev || fail "a device is left"
! weft line --near /nonsense true 2>"$TMP/err" || fail "an end that there is not"
grep -q '^weft-line: cannot enter the network namespace /nonsense: ' "$TMP/err" ||
	fail "$(cat "$TMP/err")"
