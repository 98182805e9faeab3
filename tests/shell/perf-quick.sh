#!/bin/bash
# SPDX-License-Identifier: MIT
# The donor keeps what it promises beside nbdkit and the floor (perf/suites/nbd-servers.c has the
# bounds).
# presets: release only
# timeout: 240
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdkit

"$WEFT_BIN/weft-perf" --quick >"$TMP/out" ||
	{ cat "$TMP/out" && fail "a bound was missed in each of four tries"; }
grep -q '^held' "$TMP/out" || fail "no bound was looked at: $(cat "$TMP/out")"
