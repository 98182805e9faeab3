# SPDX-License-Identifier: MIT
# tier: long
# timeout: 150
# A copy that is lost for long is replaced by a spare while the device is used.  The region that was
# replaced is never taken for a copy again, whoever names it; and the command line that the device
# was attached with finds those that are.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"

export COPY_LEASE=4
for donor in a b c; do lend "$donor"; done
with_spare() { mirror a b -- --spare "${COPY[c]}" --spare-after 2 --dead-timeout 4 "$@"; }
is_copy() { copies '.members[] | select(.state == "current") | .donor' | grep -qxF "${COPY[$1]}"; }

! mirror a b -- --spare "${COPY[b]}" || fail "a copy was taken for a spare"
refused "is a copy already"
! weft attach "${COPY[a]}" --spare "${COPY[b]}" --socket "$TMP/s2" 2>"$TMP/err" || fail "no mirror"
refused "are for --mirror"
with_spare || fail "$(cat "$TMP/err")"
writes 1 || fail "$(cat "$TMP/io")"

# One that comes back soon is no case for a spare.
lose b
writes 2 || fail "$(cat "$TMP/io")"
lend b
wait_for -t 60 is_whole
is_copy b || fail "$(copies .)"

lose b
writes 3 || fail "$(cat "$TMP/io")"
replaced() { is_whole && is_copy c; }
wait_for -t 60 replaced
reads 3 || fail "$(cat "$TMP/io")"
weft status m >"$TMP/out" || fail "exit status $?: $(cat "$TMP/out")"
weft verify m >"$TMP/out" || fail "$(cat "$TMP/out")"
lend b
writes 4 || fail "$(cat "$TMP/io")"

# The bridge is killed: the next one goes on with the spare.
kill_bridge
with_spare || fail "$(cat "$TMP/err")"
is_copy c || fail "$(copies .)"
reads 4 || fail "$(cat "$TMP/io")"
wait_for -t 60 is_whole
detach

# Alone with the one that was replaced nothing is known: the spare could know more.
! mirror a b || fail "a copy that was replaced was attached"
refused "replaced since"
weft rescue --copies "${COPY[@]}" >"$TMP/out" || fail "$(cat "$TMP/out")"
grep -qF "weft attach ${COPY[a]} ${COPY[c]} --mirror 2" "$TMP/out" || fail "$(cat "$TMP/out")"
with_spare || fail "$(cat "$TMP/err")"
is_copy c || fail "$(copies .)"
reads 4 || fail "$(cat "$TMP/io")"

# Power comes back: the spare is there first, and the one whose place it has never is.
wait_for -t 60 is_whole
detach
lose a b c
lend c
with_spare --wait 60 &
ATTACH=$!
waits() { grep -qF "trying again" "$TMP/err"; }
wait_for -t 30 waits
lend a
wait "$ATTACH" || fail "exit status $?: $(cat "$TMP/err")"
is_copy c || fail "$(copies .)"
reads 4 || fail "$(cat "$TMP/io")"
wait_for -t 60 is_whole
lend b

# The other way round: what was replaced is the next spare.
lose c
is_back() { is_whole && is_copy b; }
wait_for -t 60 is_back
reads 4 || fail "$(cat "$TMP/io")"
writes 5 || fail "$(cat "$TMP/io")"
lend c
detach
# It is not put in the place of a copy that was made of its successor and only does not answer now.
lose b
! with_spare || fail "attached with one copy of two"
refused "${COPY[b]}: "
lend b
weft attach "${COPY[a]}" "${COPY[b]}" --mirror 2 --name m --socket "$TMP/s" >"$TMP/out" 2>&1 ||
	fail "$(cat "$TMP/out")"
reads 5 || fail "$(cat "$TMP/io")"
detach

# Two copies are wanted of what one holds: both have it before the device is there.
forget a b
lend a
lend b
weft attach "${COPY[a]}" --name alone --socket "$TMP/s" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
writes 6 || fail "$(cat "$TMP/io")"
weft detach alone >"$TMP/out" || fail "$(cat "$TMP/out")"
mirror b a -- --min-copies 2 --from "${COPY[a]}" || fail "$(cat "$TMP/err")"
is_whole || fail "$(copies .)"
reads 6 || fail "$(cat "$TMP/io")"
weft verify m >"$TMP/out" || fail "$(cat "$TMP/out")"
detach
