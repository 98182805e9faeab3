# SPDX-License-Identifier: MIT
# A donor, its holder and a bridge hold keys and other people's memory: a crash dumps no core.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool prlimit jq

[[ $(ulimit -Hc) != 0 ]] || skip "this shell may dump no core, so its children could not"
ulimit -Sc "$(ulimit -Hc)"
start_donor --memory r=1M
weft attach "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" || fail "cannot attach"
bridge=$(weft status r --json | jq '.attachments[0].pid')
holder=$(basename "$(ls "$WEFT_RUN_DIR"/hold-*.sock)" .sock)
# At 1 the kernel dumps into a file as little as at 0, and into a pipe not either.
for pid in "$DONOR_PID" "$bridge" "${holder#hold-}"; do
	[[ $(prlimit --pid "$pid" --core --noheadings --raw --output SOFT) = 1 ]] ||
		fail "it may dump a core: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
done
