# SPDX-License-Identifier: MIT
# As many strangers as a donor with keys lets stay, all in the middle of TLS: each costs less than
# 100 KiB and is hung up on 10 seconds later; who has a key comes in meanwhile.
# timeout: 120
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "$WEFT_SRC/tests/strangers.sh"
need_tool python3 jq
count=512
(($(ulimit -Hn | sed s/unlimited/9999999/) > 4 * count + 100)) ||
	skip "the limit of open files is low"
over_the_network "$@"

cd "$TMP"
weft key new node7 --store store --out node7.key >/dev/null
start_donor --keys store --memory r=1M --listen 192.0.2.1:0
before_kb=$(rss_kb)
python3 "$WEFT_SRC/tests/support/tls-strangers.py" 192.0.2.1 "$PORT" $count >strangers &
strangers=$!
wait_for -t 60 grep -q there strangers
each_kb=$((($(rss_kb) - before_kb) / count))
weft attach "weft://192.0.2.1:$PORT/r" --key node7.key --socket s >out || fail "$(<out)"
weft detach r >/dev/null
wait $strangers || fail "$(<strangers)"
read -r first last < <(tail -n 1 strangers)
echo "$each_kb KiB each; hung up on after $first to $last s"
((each_kb < 100)) || fail "each costs $each_kb KiB"
# The oldest of them make room for the borrower.
awk "BEGIN {exit !($last > 9.5 && $last < 15)}" || fail "the last one stayed $last s"
