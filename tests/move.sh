# SPDX-License-Identifier: MIT
# What tests of weft move share: donors that answer what a script says (support/move-donor.py).
# Source it after lib.sh.
# shellcheck shell=bash

ID=00112233445566ff

# scripted NAME SCRIPT: a donor; for NAME b, sets B_PORT, B_PID, and B_LOG, the questions to it.
scripted() {
	local said=$TMP/$1.said name=${1^^}
	rm -f "$said" "$TMP/$1.log"
	printf '%s\n' "$2" >"$TMP/$1.script"
	python3 "$WEFT_SRC/tests/support/move-donor.py" "$TMP/$1.script" "$TMP/$1.log" >"$said" &
	declare -g "${name}_PID=$!" "${name}_LOG=$TMP/$1.log"
	wait_for -t 120 test -s "$said"
	declare -g "${name}_PORT=$(<"$said")"
}

# status PHASE [MEMBERS]: an answer to take-status, as JSON.
status() {
	jq -nc --arg id "$ID" --arg phase "$1" '{move: $id, phase: $phase, size: 1073741824,
		copied: 536870912, left: 536870912, rate: 104857600, dirty_rate: 1048576, round: 1,
		eta_ms: 1500, downtime_ms: null, checked: 0, error: null, from: "?", region: "r",
		borrowers: 1} + '"${2-{\}}"
}

# asked NAME FILTER: whether one of the questions to it is so.
asked() {
	local log=${1^^}_LOG
	jq -se "any(.[]; $2)" "${!log}" >/dev/null
}
