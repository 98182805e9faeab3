# SPDX-License-Identifier: MIT
# Several regions move at a time, all of a donor's with --all, and share a bandwidth; one that
# cannot move stops no other.  --wait, and --all, end when each borrower is at the other donor.
# timeout: 240
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq

random_file "$TMP/contents" 4194304
regions=()
for i in {1..9}; do regions+=(--memory "r$i=4M"); done
truncate -s 1M "$TMP/file"
start_donor "${regions[@]}" --file "f=$TMP/file"
A=weft://127.0.0.1:$PORT
start_donor --memory mine=1M --take 256M
B=weft://127.0.0.1:$PORT
for i in {1..9}; do
	weft push "$TMP/contents" "$A/r$i" >/dev/null || fail "push"
done

echo "several, one of which there is not"
code=0
weft move "$A/r1" "$A/none" "$A/r2" "$B" >"$TMP/out" 2>"$TMP/err" || code=$?
[[ $code = 1 && $(grep -c "^moved $A/r[12] to $B/r[12]: 4 MiB" "$TMP/out") = 2 ]] ||
	fail "exit status $code: $(cat "$TMP/out" "$TMP/err")"
grep -qx "weft-move: 2 of 3 regions have moved; not: $A/none" "$TMP/err" || fail "$(<"$TMP/err")"

echo "a bandwidth that they share"
begin=$(date +%s%N)
weft move --bandwidth 8M "$A/r3" "$A/r4" "$A/r5" "$A/r6" "$B" >"$TMP/out" || fail "$(<"$TMP/out")"
ms=$((($(date +%s%N) - begin) / 1000000))
# 16 MiB at 8 MiB a second; alone each would take half a second.
((ms > 1500)) || fail "it took $ms ms"

echo "all, with a borrower that comes late"
weft attach "$A/r7" --name late --socket "$TMP/s" || fail "attach"
weft attach "$A/r8" --name reader --shared --socket "$TMP/s2" || fail "attach"
bridge=$(weft status late --json | jq '.attachments[0].pid')
kill -STOP "$bridge"
weft move --all "$A" "$B" --json >"$TMP/json" 2>"$TMP/err" &
mover=$!
r7_moved() {
	weft status --json | jq -e '[.donors[].moves.taking[]? | select(.region == "r7" and
		.phase == "done" and .waiting == 1 and .who == "'"'late'"'")] != []' >/dev/null
}
wait_for -t 60 r7_moved
! gone $mover || fail "it did not wait: $(cat "$TMP/json" "$TMP/err")"
kill -CONT "$bridge"
code=0
wait $mover || code=$?
# The file is named: it is there still.
[[ $code = 1 ]] || fail "exit status $code: $(cat "$TMP/json" "$TMP/err")"
grep -qx "weft-move: 3 of 4 regions have moved; not: $A/f" "$TMP/err" || fail "$(<"$TMP/err")"
! grep -q "has not come there$" "$TMP/err" || fail "$(<"$TMP/err")"
jq -se '[.[] | select(.result == "moved") | .to] | sort ==
	["'"$B"'/r7", "'"$B"'/r8", "'"$B"'/r9"]' "$TMP/json" >/dev/null || fail "$(<"$TMP/json")"
for name in late reader; do
	weft status $name --json | jq -e '.attachments[0] | .state == "ready" and .errors == 0 and
		(.donors[0].uri | startswith("'"$B"'"))' >/dev/null || fail "$(weft status $name)"
	weft detach $name || fail "detach"
done
for i in {1..9}; do
	weft pull "$B/r$i" "$TMP/there" >/dev/null || fail "pull"
	cmp "$TMP/contents" "$TMP/there" || fail "other contents in r$i"
done
weft list "$A" --json | jq -e 'map(.name) == ["f"]' >/dev/null || fail "$(weft list "$A")"

echo "usage"
for wrong in "--all $A/r1 $B" "--all $A $B/r1" "--resolve $A/r1 $A/r2 $B" "$A $B"; do
	code=0
	# shellcheck disable=SC2086 # words
	weft move $wrong >"$TMP/out" 2>&1 || code=$?
	[[ $code = 2 ]] || fail "weft move $wrong: exit status $code: $(<"$TMP/out")"
done
