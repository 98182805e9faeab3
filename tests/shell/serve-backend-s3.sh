# SPDX-License-Identifier: MIT
# A region whose chunks are objects of S3 (a stub of it), by nbdkit's plugin: objects are written
# whole, a missing one reads as zeros, and a server that refuses is an error.
# timeout: 120
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdkit nbdcopy qemu-io python3
store=("$WEFT_SRC/fabric/examples/s3-store.py" bucket=b key=r size=4M object-size=64K)
nbdkit -U - python "${store[@]}" --run true 2>/dev/null ||
	skip "nbdkit's plugin for S3, or python3-boto3, is not installed"

python3 "$WEFT_SRC/tests/support/s3-stub.py" "$TMP/broken" >"$TMP/port" &
wait_for test -s "$TMP/port"
export AWS_EC2_METADATA_DISABLED=true AWS_DEFAULT_REGION=us-east-1 AWS_MAX_ATTEMPTS=1
nbdkit -U "$TMP/sock" -P "$TMP/pid" -f python "${store[@]}" \
	endpoint-url="http://127.0.0.1:$(<"$TMP/port")" \
	access-key=a secret-key=s 2>"$TMP/nbdkit.log" &
wait_for -t 30 test -s "$TMP/pid"
uri="nbd+unix:///?socket=$TMP/sock"
start_donor --backend "r=$uri"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/seen"
cmp "$TMP/seen" <(head -c 4194304 /dev/zero) || fail "an empty store is not all zeros"
random_file "$TMP/file" 4194304
nbdcopy --flush "$TMP/file" "nbd://127.0.0.1:$PORT/r" || fail "$(cat "$TMP/nbdkit.log")"
nbdcopy "$uri" "$TMP/seen"
cmp "$TMP/seen" "$TMP/file" || fail "the store has other bytes"

echo "== a server that refuses"
touch "$TMP/broken"
qemu-io -f raw -c 'write -P 5 0 4k' -c flush "nbd://127.0.0.1:$PORT/r" >"$TMP/io" 2>&1 || :
grep -qi error "$TMP/io" || fail "a flush to nowhere succeeded: $(<"$TMP/io")"
rm "$TMP/broken"
qemu-io -f raw -c flush "nbd://127.0.0.1:$PORT/r" >"$TMP/io" 2>&1 ||
	fail "$(cat "$TMP/io" "$DONOR_LOG" "$TMP/nbdkit.log")"
stop_donor
nbdcopy "$uri" "$TMP/seen"
cmp -n 4096 "$TMP/seen" <(head -c 4096 /dev/zero | tr '\0' '\5') || fail "the write was lost"
cmp -i 4096 "$TMP/seen" "$TMP/file" || fail "other bytes than before"
