# SPDX-License-Identifier: MIT
# presets: dev asan tsan
# SIGTERM while a client writes: what was acknowledged is in the file, exit status 0, and the epoch
# survives.  kill -9 instead: what was acknowledged is there as well, under a new epoch.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool qemu-io

epoch() {
	sed -n 's/^region .*epoch \([0-9a-f]*\) .*/\1/p' "$DONOR_LOG"
}

# load SIGNAL: writes 64 KiB after 64 KiB, each of another byte, until the donor is gone.
load() {
	local i acknowledged writer
	truncate -s 0 "$TMP/image"
	truncate -s 64M "$TMP/image"
	start_donor --file "image=$TMP/image"
	for ((i = 0; i < 1024; i++)); do
		echo "write -P $((i % 251 + 1)) $((i * 64))K 64K"
	done >"$TMP/commands"
	qemu-io -f raw "nbd://127.0.0.1:$PORT/image" <"$TMP/commands" >"$TMP/log" 2>&1 &
	writer=$!
	wait_for bash -c "[[ \$(grep -c '^wrote\|wrote ' '$TMP/log') -gt 20 ]]"
	status=0
	stop_donor "$1" || status=$?
	wait "$writer" || :
	acknowledged=$(grep -c 'wrote 65536/65536' "$TMP/log") || :
	((acknowledged > 20)) || fail "only $acknowledged writes"
	for ((i = 0; i < acknowledged; i++)); do
		head -c 65536 /dev/zero | tr '\0' "\\$(printf %o $((i % 251 + 1)))"
	done >"$TMP/expected"
	cmp -n $((acknowledged * 65536)) "$TMP/expected" "$TMP/image" ||
		fail "an acknowledged write is not in the file"
}

load TERM
((status == 0)) || fail "exit status $status"
first=$(epoch)
start_donor --file "image=$TMP/image"
[[ $(epoch) = "$first" ]] || fail "a clean stop lost the epoch"
stop_donor

load KILL
first=$(epoch)
start_donor --file "image=$TMP/image"
[[ $(epoch) != "$first" ]] || fail "the epoch of a file survived a crash"
