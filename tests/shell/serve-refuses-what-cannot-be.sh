# SPDX-License-Identifier: MIT
# presets: dev asan
# Command lines that make no sense and lendings that cannot be: refused at once, with the way out.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

# refused STATUS PATTERN ARGUMENT…
refused() {
	local want=$1 pattern=$2 status=0
	shift 2
	timeout 20 weft-serve "$@" >"$TMP/log" 2>&1 || status=$?
	[[ $status = "$want" ]] ||
		fail "weft-serve $*: exit status $status, not $want: $(cat "$TMP/log")"
	grep -qe "$pattern" "$TMP/log" || fail "weft-serve $*: no '$pattern' in: $(cat "$TMP/log")"
}

refused 2 'nothing to lend'
refused 2 'wants NAME=SIZE' --memory scratch
refused 2 'wants NAME=SIZE' --memory =1G
refused 2 'is no size' --memory scratch=lots
refused 2 'is no size' --memory scratch=0
refused 2 'wants NAME=PATH' --file image
refused 2 "two regions named 'a'" --memory a=1M --memory a=1M
refused 2 'wants 2M or 1G' --memory a=1M --hugepages 4M
refused 2 'numa wants' --memory a=1M --numa here
refused 2 'wants seconds' --memory a=1M --lease soon
refused 2 'wants seconds' --memory a=1M --lease 0
refused 2 'wants seconds, 1 to 604800,' --memory a=1M --lease 604801
refused 2 'is no option' --memory a=1M scratch=1G
refused 2 'weft serve --help' --memory a=1M --wrong
refused 1 'no address to listen on' --memory a=1M --listen 127.0.0.1:99999
refused 1 'no address to listen on' --memory a=1M --listen '[::1'
refused 1 'no address to listen on' --memory a=1M --listen 'no such host'
refused 1 "'a?b' cannot be a region's name" --memory $'a\nb=1M' --listen 127.0.0.1:0
# To borrowers that name means another region (weft-protocol(7)).
for what in --memory=weft:session=1M "--file=weft:session=$0"; do
	refused 1 "'weft:session' cannot be a region's name" "$what" --listen 127.0.0.1:0
done
refused 1 'No such file' --file "a=$TMP/none" --listen 127.0.0.1:0
refused 1 'it is neither a regular file nor a block device' --file a=/dev/null --listen 127.0.0.1:0
touch "$TMP/empty"
refused 1 'is empty; give it a size first' --file "a=$TMP/empty" --listen 127.0.0.1:0
refused 1 'No such file' --directory "$TMP/none" --listen 127.0.0.1:0
refused 1 'NUMA node' --memory a=1M --numa 999 --listen 127.0.0.1:0

# More memory than there is: at once, and together as well as one by one.
refused 1 'insist with --overcommit' --memory a=1000T --listen 127.0.0.1:0
kib=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
refused 1 'wanted for 3 regions' --listen 127.0.0.1:0 \
	--memory "a=$((kib / 2))K" --memory "b=$((kib / 2))K" --memory "c=$((kib / 2))K"

# Beyond this machine only when told to.
refused 1 'say --allow-insecure' --memory a=1M --listen 0.0.0.0:0
refused 1 'say --allow-insecure' --memory a=1M --listen 192.0.2.1
start_donor --memory a=1M --listen 0.0.0.0:0 --allow-insecure
grep -q 'warning: whoever reaches' "$DONOR_LOG" || fail "no warning"
grep -qF "weft://$(hostname):" "$DONOR_LOG" || fail "$(cat "$DONOR_LOG")"
