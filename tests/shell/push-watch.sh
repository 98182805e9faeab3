# SPDX-License-Identifier: MIT
# weft push --watch pushes what a program changes in a mapped file, again and again; whenever it
# says that nothing changed in two passes, the region is a state that the program's pause had.
# presets: dev asan
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3

start_donor --allow-insecure --memory r=9M
head -c 8M /dev/zero >"$TMP/file"
# Each number that it reads goes into all blocks, in any order; then it pauses.
cat >"$TMP/writer.py" <<'PY'
import mmap, random, sys, time
with open(sys.argv[1], "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
for line in sys.stdin:
    blocks = list(range(len(m) // 4096))
    random.shuffle(blocks)
    for i, block in enumerate(blocks):
        m[block * 4096:block * 4096 + 8] = int(line).to_bytes(8, "big")
        if i % 256 == 0:
            time.sleep(0.02)
    print("wrote", int(line), flush=True)
PY
mkfifo "$TMP/numbers"
python3 "$TMP/writer.py" "$TMP/file" <"$TMP/numbers" >"$TMP/wrote" &
writer=$!
exec 3>"$TMP/numbers"
weft push --watch --interval 0.05 --json "$TMP/file" "$URI" >"$TMP/said" 2>"$TMP/err" 3>&- &
pusher=$!

# The last lines of what it says: settled after something was pushed.
settled() {
	jq -es 'length > '"$1"' and (.['"$1"':] | any(.different_bytes > 0)) and .[-1].settled' \
		"$TMP/said" >/dev/null
}
said() { jq -es length "$TMP/said"; }
first() { jq -es '.[0].complete and .[-1].settled' "$TMP/said" >/dev/null; }
wait_for -t 60 first
for number in 1 2 3; do
	lines=$(said)
	echo "$number" >&3
	grep_wrote() { grep -qx "wrote $number" "$TMP/wrote"; }
	wait_for -t 60 grep_wrote
	wait_for -t 60 settled "$lines"
	rm -f "$TMP/copy"
	weft pull --shared "$URI" "$TMP/copy" >/dev/null || fail "pull"
	cmp -n $((8 << 20)) "$TMP/file" "$TMP/copy" || fail "$number: the region is something else"
	python3 -c '
import sys
with open(sys.argv[1], "rb") as f:
    seen = {f.read(4096)[:8] for _ in range(2048)}
assert seen == {int(sys.argv[2]).to_bytes(8, "big")}, seen' "$TMP/copy" "$number"
done
# One byte is one block.
lines=$(said)
printf z | dd of="$TMP/file" bs=1 seek=5000 conv=notrunc status=none
wait_for -t 60 settled "$lines"
jq -es '[.['"$lines"':][].different_bytes] | add == 4096' "$TMP/said" >/dev/null ||
	fail "one byte: $(cat "$TMP/said")"

exec 3>&-
wait "$writer"
kill -INT "$pusher"
# In a pass, which is as likely on a busy machine, it says that it was stopped.
wait "$pusher" || grep -q 'weft-push: stopped: ' "$TMP/err" || fail "stopped: $(cat "$TMP/err")"

# What cannot be watched.
truncate -s 4M "$TMP/other"
weft push --watch --interval 0.05 "$TMP/other" "$URI" >"$TMP/said" 2>"$TMP/err" &
pusher=$!
line() { grep -q 'nothing changed in two passes' "$TMP/said"; }
wait_for -t 60 line
truncate -s 5M "$TMP/other"
status=0
wait "$pusher" || status=$?
((status == 1)) && grep -q 'has another length than before' "$TMP/err" || fail "$(cat "$TMP/err")"
weft push --watch - "$URI" 2>"$TMP/err" </dev/null && fail "standard input was watched"
grep -q -e '--watch wants a file' "$TMP/err" || fail "$(cat "$TMP/err")"
