# SPDX-License-Identifier: MIT
# timeout: 120
# Which copies a borrower goes on with: a set is made of regions that were never written; the copy
# that missed a write is never taken for the device, alone or first; and whoever is refused is told
# what each donor has noted.
# presets: dev
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"

export COPY_LEASE=5
lend a
lend b
AB=("${COPY[a]}" "${COPY[b]}")

# All donors have to answer before a set is made, and asking leaves no trace.
lose b
! mirror a b || fail "a set of one donor was made"
refused "which copies are current is not known"
refused "${COPY[a]}: generation none"
lend b
mirror a b || fail "$(cat "$TMP/err")"
grep -q "2 copies, all current; survives: 1 donor" "$TMP/out" || fail "$(cat "$TMP/out")"
writes 1 || fail "$(cat "$TMP/io")"
detach

# One copy is no device.
! weft attach "${COPY[a]}" --name alone --socket "$TMP/s2" 2>"$TMP/err" || fail "a copy alone"
refused "is copy 1 of 2 of a device"
! mirror b a || fail "copies in another order"
refused "is copy 2 of 2"
! weft attach "${AB[@]}" --name stripes --socket "$TMP/s2" 2>"$TMP/err" || fail "taken for stripes"

# The classic: a dies, b is written, b dies, a comes back.
mirror a b -- --dead-timeout 4 || fail "$(cat "$TMP/err")"
lose a
writes 2 || fail "with one copy: $(cat "$TMP/io")"
wait_for is_degraded
detach
lose b
lend a
! mirror a b || fail "the stale copy was attached"
refused "which copies are current is not known"
refused "${COPY[a]}: generation "
status=0
weft rescue --copies "${AB[@]}" >"$TMP/out" 2>&1 || status=$?
((status == 3)) || fail "rescue --copies: $status: $(cat "$TMP/out")"
# Both are there: the one that has the write decides.
lend b
weft rescue --copies "${AB[@]}" >"$TMP/out" || fail "rescue --copies: $(cat "$TMP/out")"
grep -q "current: 2 of 2" "$TMP/out" || fail "$(cat "$TMP/out")"
# a was told no goodbye, and keeps its copy for a lease.
mirror a b -- --wait 60 || fail "$(cat "$TMP/err")"
reads 2 || fail "what was written to one copy is gone: $(cat "$TMP/io")"
wait_for -t 60 is_whole
reads 2 || fail "$(cat "$TMP/io")"
detach

# Now the other one is lost, with its memory, and so is what the donor has noted.
forget b
lend b
! mirror a b || fail "one copy with notes, and one that has forgotten, are not enough"
refused "generation none"
status=0
weft rescue --copies "${AB[@]}" >"$TMP/out" 2>&1 || status=$?
((status == 4)) || fail "rescue --copies: $status: $(cat "$TMP/out")"
grep -qF -- "--from ${COPY[a]}" "$TMP/out" || fail "no way out: $(cat "$TMP/out")"
weft rescue --copies "${AB[@]}" --json >"$TMP/json" || :
fits looks "$TMP/json"
jq -e '.sets[0].verdict == "lost" and (.regions | length) == 2' "$TMP/json" >/dev/null ||
	fail "$(cat "$TMP/json")"
mirror a b -- --min-copies 1 --from "${COPY[a]}" || fail "$(cat "$TMP/err")"
reads 2 || fail "what was chosen is gone: $(cat "$TMP/io")"
wait_for -t 60 is_whole
detach
! mirror a b -- --from "${COPY[a]}" || fail "a choice where there is none to make"
refused "are copies already"

# Regions that have been used are no new set, unless one is chosen.
lend c
weft attach "${COPY[c]}" --name alone --socket "$TMP/s2" >/dev/null
weft detach alone
! mirror a c || fail "a region that others have used became a copy"

# Nor one that a client of another kind has written, wherever it has moved since.
lend d --take 64M
lend e
qemu-io -f raw -c 'write -P 7 0 1M' "nbd${COPY[e]#weft}" >"$TMP/io" || fail "$(cat "$TMP/io")"
COPY["moved"]=weft://127.0.0.1:${COPY_PORT[d]}/moved
weft move "${COPY[e]}" "${COPY[moved]}" >"$TMP/out" 2>&1 || fail "move: $(cat "$TMP/out")"
! mirror d moved || fail "a region that others have written became a copy"
refused "may have been written"
