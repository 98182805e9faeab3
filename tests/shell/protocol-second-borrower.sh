# SPDX-License-Identifier: MIT
# Another implementation of a borrower, written from weft-protocol(7) alone, gets on with a donor:
# what the manual says of contexts, refusals, generations, leases, tenures and files is so.
# presets: dev asan
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

borrower() {
	timeout 120 python3 "$WEFT_SRC/tests/support/second-borrower.py" "$PORT" "$@" ||
		fail "$*: $?"
}

start_donor --memory r=64M --memory s=8M --memory t=8M --lease 2
borrower memory
stop_donor || fail "the donor's exit status: $?"

truncate -s 1M "$TMP/file"
for steps in "file $TMP/state" "again $TMP/state" read-only; do
	read -ra steps <<<"$steps"
	only=()
	[[ ${steps[0]} != read-only ]] || only=(--read-only)
	start_donor --file "f=$TMP/file" --lease 2 "${only[@]}"
	borrower "${steps[@]}"
	stop_donor || fail "the donor's exit status: $?"
done
