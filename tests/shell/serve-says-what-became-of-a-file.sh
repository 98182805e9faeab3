# SPDX-License-Identifier: MIT
# presets: dev asan tsan
# A file region whose file was removed, replaced or cut: the donor says so once, status and list
# show it, and a newcomer is refused with the reason; who uses the region gets I/O errors, and never
# anything else.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io jq

check() { # REGION REASON
	local said
	wait_for grep \
		-q \
		"region '$1': its file $TMP/$1 $2; it cannot be written or attached until weft serve is started anew" "$DONOR_LOG"
	weft status |
		grep >/dev/null "    cannot be written or attached: region '$1': its file .* $2" ||
			fail "status: $(weft status)"
	weft status --prometheus |
		grep -x >/dev/null \
			"weft_donor_region_usable{listen=\"127.0.0.1:$PORT\",region=\"$1\"} 0" ||
				fail "$(weft status --prometheus)"
	weft list "weft://127.0.0.1:$PORT" | grep >/dev/null "^$1 .*cannot be attached: .* $2" ||
		fail "list: $(weft list "weft://127.0.0.1:$PORT")"
	! said=$(weft attach "weft://127.0.0.1:$PORT/$1" --socket "$TMP/new" --name new 2>&1) ||
		fail "attached a file that $2"
	[[ $said = *"$2"* ]] || fail "$said"
	! qemu-io -f raw -c 'read 0 4096' "nbd://127.0.0.1:$PORT/$1" >/dev/null 2>&1 ||
		fail "a stock client was granted $1"
}

for f in removed replaced cut whole; do truncate -s 1M "$TMP/$f"; done
start_donor --file "removed=$TMP/removed" --file "replaced=$TMP/replaced" --file "cut=$TMP/cut" \
	--file "whole=$TMP/whole"
weft attach "weft://127.0.0.1:$PORT/cut" --socket "$TMP/s" --name user >/dev/null
qemu-io -f raw -c 'write -P 5 0 4096' "nbd+unix:///?socket=$TMP/s" >/dev/null
[[ $(weft status --json | jq -c '.donors[0].regions | map(.trouble)') = '[null,null,null,null]' ]] \
	|| fail "trouble from the start"
rm "$TMP/removed"
truncate -s 4M "$TMP/other"
mv "$TMP/other" "$TMP/replaced"
truncate -s 12K "$TMP/cut"
check removed 'was removed'
check replaced 'was replaced by another one'
check cut 'became shorter: 12 KiB of 1 MiB are left'
! qemu-io -f raw -c 'write -P 5 64K 4096' "nbd+unix:///?socket=$TMP/s" >/dev/null ||
	fail "written behind the end"
weft detach user >/dev/null
weft attach "weft://127.0.0.1:$PORT/whole" --socket "$TMP/s" --name whole >/dev/null ||
	fail "the others are not to suffer"
weft detach whole >/dev/null
[[ $(grep -c "warning: .*its file" "$DONOR_LOG") = 3 ]] || fail "not once: $(cat "$DONOR_LOG")"
stop_donor

# Of a directory, in use: the same, until its users are gone.
mkdir "$TMP/dir"
truncate -s 1M "$TMP/dir/a"
start_donor --directory "$TMP/dir"
weft attach "weft://127.0.0.1:$PORT/a" --socket "$TMP/s" --name user >/dev/null
truncate -s 2M "$TMP/a"
mv "$TMP/a" "$TMP/dir/a"
wait_for grep \
	-q \
	"region 'a': its file $TMP/dir/a was replaced by another one; .* until those who use it have detached" "$DONOR_LOG"
weft status |
	grep >/dev/null \
		"    cannot be written or attached: region 'a': its file .* was replaced by another one" || fail "status: $(weft status)"
! said=$(weft attach "weft://127.0.0.1:$PORT/a" --socket "$TMP/n" --name new --read-only --shared 2>&1) || fail "attached the old file"
[[ $said = *"was replaced by another one"* ]] || fail "$said"
weft detach user >/dev/null
weft attach "weft://127.0.0.1:$PORT/a" --socket "$TMP/n" --name new >/dev/null ||
	fail "the new file cannot be attached"
weft status new --json | jq -e '.attachments[0].size_bytes == 2097152' >/dev/null ||
	fail "the old size"
weft detach new >/dev/null
