# SPDX-License-Identifier: MIT
# While a donor lends and a bridge is attached, the key's secret is in locked memory, which no core
# has, and nowhere else in them: not in what the library of TLS keeps either.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool jq python3 prlimit
(($(prlimit --memlock --noheadings --raw --output SOFT | sed s/unlimited/9999999/) > 65536)) ||
	skip "little memory may be locked here"
over_the_network "$@"

cd "$TMP"
weft key new node7 --store store --out node7.key >/dev/null
start_donor --keys store --memory r=1M --listen 192.0.2.1:0
weft attach "weft://192.0.2.1:$PORT/r" --key node7.key --socket s >/dev/null
bridge=$(weft status r --json | jq '.attachments[0].pid')
for pid in "$DONOR_PID" "$bridge"; do
	status=0
	python3 "$WEFT_SRC/tests/support/secret-in-memory.py" "$pid" node7.key >found || status=$?
	((status != 77)) || skip "the memory of other processes cannot be read here"
	((status == 0)) || fail "secret-in-memory.py: exit status $status"
	[[ $(sort -u found) = locked ]] ||
		fail "$(tr '\0' ' ' <"/proc/$pid/cmdline"): $(paste -sd ' ' found)"
done
weft detach r >/dev/null
