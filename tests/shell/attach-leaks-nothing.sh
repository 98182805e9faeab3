# SPDX-License-Identifier: MIT
# Valgrind finds no leak and no error in a donor and a bridge after a full cycle.
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool valgrind qemu-io
case $WEFT_PRESET in asan | tsan) skip "valgrind and sanitizers do not go together" ;; esac

checked=(valgrind -q --error-exitcode=99 --leak-check=full
	"--errors-for-leak-kinds=definite,possible")
# A thread's stack and TLS are given back when it is joined; glibc keeps some for the next one.
log=$TMP/donor.log
"${checked[@]}" --log-file="$TMP/valgrind-donor" "$WEFT_BIN/weft-serve" --memory r=8M \
	--listen 127.0.0.1:0 >"$log" 2>&1 &
donor=$!
wait_for -t 60 grep -qx ready "$log"
uri=$(grep -o 'weft://[^ ]*' "$log" | head -n 1)
front=(--socket "$TMP/s")
[[ ! -w /dev/fuse ]] || front+=(--mount "$TMP/file")
"${checked[@]}" --log-file="$TMP/valgrind-attach" "$WEFT_BIN/weft-attach" "$uri" \
	--foreground "${front[@]}" >"$TMP/attach.log" 2>&1 &
attach=$!
wait_for -t 60 grep -qx ready "$TMP/attach.log"
qemu-io -f raw "nbd+unix:///?socket=$TMP/s" -c 'write -P 1 0 8M' -c 'read -P 1 0 8M' -c flush \
	-c 'write -z 0 1M' >/dev/null
[[ ! -e $TMP/file ]] || dd if="$TMP/file" of="$TMP/file" bs=64k conv=notrunc,fsync status=none
weft status >/dev/null
weft status --explain >/dev/null
weft detach r
wait "$attach" || fail "attach: $(cat "$TMP/valgrind-attach")"
kill "$donor"
wait "$donor" || fail "serve: $(cat "$TMP/valgrind-donor")"
