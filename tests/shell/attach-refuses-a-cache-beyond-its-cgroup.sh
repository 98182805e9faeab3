# SPDX-License-Identifier: MIT
# A cache that is larger than the group's limit on memory is refused, with the group's name, rather
# than the bridge killed once it fills; one that fits, and one in a file, do their work.
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdcopy cmp

start_donor --memory r=160M
random_file "$TMP/data" $((160 << 20))
socket="nbd+unix:///?socket=$TMP/s"
memory_group $((96 << 20))
! in_memory_group weft attach "$URI" --socket "$TMP/s" --cache 128M >"$TMP/log" 2>&1 ||
	fail "128 MiB in a group of 96 MiB"
grep -q "a cache of 128 MiB wanted, but only .* of memory can be had (the memory limit of cgroup .*/weft-test-$$); give a smaller --cache" "$TMP/log" ||
	fail "$(cat "$TMP/log")"
! compgen -G "$WEFT_RUN_DIR/attach-r.*" || fail "something is left of it"
[[ $WEFT_PRESET != tsan ]] ||
	skip "the refusal passed; with tsan's own memory, four bytes for each, no cache fits"
for how in "--cache 48M" "--cache 128M --cache-file $TMP/cache"; do
	# shellcheck disable=SC2086 # words
	in_memory_group weft attach "$URI" --socket "$TMP/s" $how --lanes 1 >"$TMP/log" 2>&1 ||
		fail "$how: $(cat "$TMP/log")"
	nbdcopy --flush "$TMP/data" "$socket" || fail "$how: nbdcopy to it"
	nbdcopy "$socket" "$TMP/back" || fail "$how: nbdcopy from it"
	cmp "$TMP/data" "$TMP/back" || fail "$how: other bytes"
	weft detach r >/dev/null || fail "$how: detach"
done
exit 0
