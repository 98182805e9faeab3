# SPDX-License-Identifier: MIT
# Output that could not be written is a failure, whatever printed it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

start_donor --memory r=1M
lost() {
	local status=0
	"$@" >/dev/full 2>"$TMP/err" || status=$?
	[[ $status = 1 ]] || fail "$*: exit status $status"
	grep -q 'cannot write the output: No space left' "$TMP/err" || fail "$*: $(<"$TMP/err")"
}
for command in serve list attach detach status bench doctor key; do
	lost weft "$command" --help
done
lost weft --help
lost weft --version
lost weft list "weft://127.0.0.1:$PORT"
lost weft list --json "weft://127.0.0.1:$PORT"
lost weft status
lost weft status --json
lost weft status --prometheus
lost weft doctor --json
