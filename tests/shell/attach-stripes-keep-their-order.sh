# SPDX-License-Identifier: MIT
# timeout: 240
# presets: dev asan
# Two regions that were written as one striped device are that device from then on: in another
# order, with another unit, alone or with a third they are refused, in plain words and with every
# byte untouched, also after their donors were killed or restarted; until somebody says that the
# contents are given up.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdcopy cmp jq

unit=64K
truncate -s 4M "$TMP/file1" "$TMP/file2" "$TMP/file3"
port=$(free_port)
serve=(--listen "127.0.0.1:$port")
for i in 1 2 3; do serve+=(--memory "m$i=4M" --file "f$i=$TMP/file$i"); done
start_donor "${serve[@]}" --lease 1
base=weft://127.0.0.1:$port
socket="nbd+unix:///?socket=$TMP/s"
random_file "$TMP/data" $((8 << 20))

# attach_as KIND NUMBER… [-- OPTION…]
attach_as() {
	local kind=$1 uris=()
	shift
	while [[ $# -gt 0 && $1 != -- ]]; do uris+=("$base/$kind$1") && shift; done
	[[ $# = 0 ]] || shift
	weft attach "${uris[@]}" --name x --socket "$TMP/s" "$@"
}

# The bytes of each region, as any client sees them.
sum() {
	local i
	for i in 1 2 3; do nbdcopy "nbd://127.0.0.1:$port/$1$i" - | sha256sum; done
}

# refused PATTERN KIND NUMBER… [-- OPTION…]
refused() {
	local pattern=$1 status=0
	shift
	attach_as "$@" >"$TMP/out" 2>&1 || status=$?
	[[ $status = 1 ]] || fail "exit status $status: $*: $(cat "$TMP/out")"
	grep -q -- "$pattern" "$TMP/out" || fail "no '$pattern': $(cat "$TMP/out")"
	grep -q -- "to give its contents up: --new-contents" "$TMP/out" ||
		fail "no way out is told: $(cat "$TMP/out")"
	[[ $(weft status --json | jq '.attachments | length') = 0 ]] || fail "something is attached"
}

all_are_refused() {
	local kind=$1
	refused "region '${kind}[12]' is part [12] of 2 of a striped device (stripes of 64 KiB), not part [12] of 2: give the donors in the order" \
		"$kind" 2 1 -- --stripe-unit $unit
	refused "is part [12] of 2 of a striped device (stripes of 64 KiB), not part [12] of 2 (stripes of 4 KiB): give --stripe-unit 65536;" \
		"$kind" 1 2 -- --stripe-unit 4K
	refused "region '${kind}1' is part 1 of 2 .*not a whole device: give all 2 donors" "$kind" 1
	refused "region '${kind}2' is part 2 of 2 .*not a whole device" "$kind" 2 -- --read-only
	refused "region '${kind}2' is part 2 of 2 .*not a whole device" "$kind" 2 -- --shared
	refused "is part [12] of 2 .*, not part [12] of 3: give all 2 donors" "$kind" 1 2 3 -- \
		--stripe-unit $unit
	# The library and the benchmark attach one region, too.
	! weft bench "$base/${kind}1" --overwrite --time 1 >"$TMP/out" 2>&1 ||
		fail "written over by a benchmark"
	grep -q "is part 1 of 2" "$TMP/out" || fail "$(cat "$TMP/out")"
	[[ $(sum "$kind") = "$before" ]] || fail "other bytes after what was refused"
}

right_order_works() {
	attach_as "$1" 1 2 -- --stripe-unit $unit >/dev/null
	nbdcopy "$socket" "$TMP/back"
	cmp "$TMP/data" "$TMP/back" || fail "other bytes in the right order"
	weft detach x
}

for kind in m f; do
	attach_as $kind 1 2 -- --stripe-unit $unit >/dev/null
	nbdcopy "$TMP/data" "$socket"
	weft detach x
	before=$(sum $kind)
	all_are_refused $kind
	right_order_works $kind
	# A reader is welcome in the right order.
	attach_as $kind 1 2 -- --stripe-unit $unit --read-only >/dev/null
	weft detach x
	weft list "$base" | grep -q "${kind}1" || fail "not listed"
done

# Killed, with the memory kept; then stopped cleanly, which is how a file keeps its contents.
stop_donor KILL || :
start_donor "${serve[@]}" --lease 1
before=$(sum m)
all_are_refused m
right_order_works m
# Nobody is granted a file of a donor that was killed before the leases that it promised are over.
for i in 1 2 3; do wait_for nbdcopy "nbd://127.0.0.1:$port/f$i" "$TMP/back"; done
before=$(sum f)
all_are_refused f
# The files' contents are another epoch's, since nobody knows what was lost; they are parts of that
# device all the same.
right_order_works f
stop_donor
start_donor "${serve[@]}" --lease 1
before=$(sum f)
all_are_refused f
right_order_works f

# A bridge that was killed goes on with what it knows, and nothing else.
attach_as f 1 2 -- --stripe-unit $unit >/dev/null
bridge=$(weft status x --json | jq '.attachments[0].pid')
kill -KILL "$bridge"
wait_for gone "$bridge"
! attach_as f 1 2 -- --stripe-unit $unit --new-contents >"$TMP/out" 2>&1 ||
	fail "a take-over gave its contents up"
grep -q "without --new-contents" "$TMP/out" || fail "$(cat "$TMP/out")"
attach_as f 1 2 -- --stripe-unit $unit | grep -q "taken over" || fail "not taken over"
weft detach x

# Given up, in so many words; it is another device from then on, and nothing else of it has changed.
before=$(sum f)
attach_as f 2 1 -- --stripe-unit $unit --new-contents >"$TMP/out"
grep -q "new contents: .* is given up" "$TMP/out" || fail "$(cat "$TMP/out")"
bridge=$(weft status x --json | jq '.attachments[0].pid')
kill -KILL "$bridge"
wait_for gone "$bridge"
# The line that attaches it again does not say so again.
weft status x >"$TMP/out" || :
grep -q "weft attach .*--stripe-unit $unit" "$TMP/out" || fail "$(cat "$TMP/out")"
! grep -q -e --new-contents "$TMP/out" ||
	fail "the line that attaches it again gives its contents up: $(cat "$TMP/out")"
weft detach x
[[ $(sum f) = "$before" ]] || fail "other bytes after --new-contents"
refused "region 'f[12]' is part [12] of 2 .*in the order" f 1 2 -- --stripe-unit $unit
attach_as f 1 -- --new-contents >/dev/null
weft detach x
refused "region 'f1' is a whole device, not part 2 of 2 of a striped device (stripes of 64 KiB): attach this region alone" f 2 1 -- --stripe-unit $unit

# Whoever lost the region to another device does not get it back by a reset, though it said
# --new-contents once.
attach_as m 1 2 -- --stripe-unit $unit --new-contents >/dev/null
bridge=$(weft status x --json | jq '.attachments[0].pid')
kill -STOP "$bridge"
can_have_it() { weft attach "$base/m1" --name y --socket "$TMP/y" --new-contents; }
wait_for can_have_it
kill -CONT "$bridge"
weft detach y
is_stale() { [[ $(weft status x --json | jq -r '.attachments[0].state') = stale ]]; }
wait_for is_stale
! weft reset x >"$TMP/out" 2>&1 || fail "reset to what is another device's"
grep -q "region 'm1' is a whole device, not part 1 of 2" "$TMP/out" || fail "$(cat "$TMP/out")"
weft detach --force x >/dev/null 2>&1 || :

weft_fails() {
	! weft attach "$@" >"$TMP/out" 2>&1 || fail "taken: $*"
}
weft_fails "$base/f1" --socket "$TMP/s" --read-only --new-contents
grep -q -- "--new-contents is for a writer" "$TMP/out" || fail "$(cat "$TMP/out")"
weft_fails nbd://127.0.0.1/x --socket "$TMP/s" --new-contents
grep -q -- "--new-contents is for weft:// donors" "$TMP/out" || fail "$(cat "$TMP/out")"
