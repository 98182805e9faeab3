# SPDX-License-Identifier: MIT
# tier: long
# timeout: 150
# Stripes of copies go on with one of each; three copies of which two are needed go on with two, and
# with no fewer.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"

export COPY_LEASE=5
soon=(--dead-timeout 4 --on-too-few error)
for donor in a b c d; do lend "$donor"; done
weft attach "${COPY[a]}" "${COPY[b]}" "${COPY[c]}" "${COPY[d]}" --mirror 2 --stripe-unit 64K \
	--name m --socket "$TMP/s" "${soon[@]}" >"$TMP/out" || fail "not attached"
grep -q "16 MiB" "$TMP/out" || fail "$(cat "$TMP/out")"
grep -q "striped over 2 sets of copies, 64 KiB at a time" "$TMP/out" || fail "$(cat "$TMP/out")"
writes 1 "0 16M" || fail "$(cat "$TMP/io")"
lose b c
writes 2 "0 16M" || fail "with one copy of each stripe: $(cat "$TMP/io")"
reads 2 "0 16M" || fail "$(cat "$TMP/io")"
wait_for is_degraded
[[ $(copies .current) = 1 ]] || fail "$(copies '')"
lose d
wait_for is_copies "too few"
reads 2 "0 64k" || fail "the stripe that has a copy is not read: $(cat "$TMP/io")"
! reads 2 "64k 64k" || fail "a stripe without copies was read"
for donor in b c d; do lend "$donor"; done
wait_for -t 60 is_whole
reads 2 "0 16M" || fail "$(cat "$TMP/io")"
detach

# Three copies, two of which a write has at least.
forget a b c
for donor in a b c; do lend "$donor"; done
mirror a b c -- "${soon[@]}" || fail "$(cat "$TMP/err")"
grep -q "3 copies, all current; survives: 1 donor" "$TMP/out" || fail "$(cat "$TMP/out")"
writes 3 || fail "$(cat "$TMP/io")"
lose c
writes 4 || fail "with two of three: $(cat "$TMP/io")"
wait_for is_degraded
lose b
wait_for is_copies "too few"
! writes 5 "0 4k" || fail "a write that one copy alone has was answered"
# Another borrower finds out from two of them, whichever they are.
weft detach --force m >"$TMP/out" 2>&1 || :
lend c
! mirror a c -- "${soon[@]}" || fail "two copies of three, named as two of two"
! mirror a b c -- "${soon[@]}" --wait 10 || fail "attached with one copy that is current"
refused "1 current copy is there, and 2 are needed"
lend b
mirror a b c -- "${soon[@]}" --wait 60 || fail "$(cat "$TMP/err")"
reads 4 "4k 4M" || fail "$(cat "$TMP/io")"
wait_for -t 60 is_whole
