# SPDX-License-Identifier: MIT
# tier: long
# timeout: 150
# A bridge with copies that was killed is taken over with the copies that it knew as current, and
# with no others; another borrower is kept out meanwhile, and changes nothing.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"

export COPY_LEASE=5
soon=(--dead-timeout 4)
lend a
lend b
mirror a b -- "${soon[@]}" || fail "$(cat "$TMP/err")"
writes 1 || fail "$(cat "$TMP/io")"

# Both are there: they are made the same, whatever was under way.
kill_bridge
mirror a b -- "${soon[@]}" || fail "$(cat "$TMP/err")"
grep -q "taken over" "$TMP/out" || fail "$(cat "$TMP/out")"
reads 1 || fail "$(cat "$TMP/io")"
is_whole || fail "$(copies '')"

# Another number of copies, or none, is refused.
kill_bridge
! weft attach "${COPY[a]}" "${COPY[b]}" --name m --socket "$TMP/s" 2>"$TMP/err" || fail "stripes"
refused "give --mirror 2 --min-copies 1"
! mirror a b -- --min-copies 2 || fail "another number of copies"
refused "give --mirror 2 --min-copies 1"
mirror a b -- "${soon[@]}" || fail "$(cat "$TMP/err")"

# One is left behind, and what only the other has is written.
lose b
writes 2 || fail "$(cat "$TMP/io")"
wait_for is_degraded
kill_bridge
lend b
# b answers, and is no member; the one that is does not answer.
lose a
! mirror a b -- "${soon[@]}" || fail "the copy that was left behind was gone on with"
refused "0 current copies are there"
lend a
mirror a b -- "${soon[@]}" --wait 60 || fail "$(cat "$TMP/err")"
reads 2 || fail "$(cat "$TMP/io")"
wait_for -t 60 is_whole

# Somebody else, while one donor has just come back: refused, and nothing is claimed anywhere.
lose b
writes 3 || fail "$(cat "$TMP/io")"
wait_for is_degraded
lend b
! weft attach "${COPY[a]}" "${COPY[b]}" --mirror 2 --name other --socket "$TMP/s2" 2>"$TMP/err" ||
	fail "two borrowers"
refused "held by"
wait_for -t 60 is_whole
reads 3 || fail "$(cat "$TMP/io")"

# No donor has what the device's users remember: that is an error, and never zeros.
kill_bridge
forget a b
lend a
lend b
status=0
mirror a b -- "${soon[@]}" --wait 60 || status=$?
((status == 3)) || fail "exit status $status: $(cat "$TMP/err")"
! reads 0 || fail "read zeros of a device that is lost"
weft detach --force m >"$TMP/out" 2>&1 || :
