# SPDX-License-Identifier: MIT
# Followers (weft pull --watch) have a file that is always a state which the writer marked, or which
# a push found to be one: while a program changes the file through a mapping, and pushers, followers
# and the donor are killed.  What a reader has open does not change.
# presets: dev asan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3

NR_FOLLOWERS=3
start_donor --allow-insecure --lease 5 --memory r=4M
head -c 4M /dev/zero >"$TMP/file"

# Looks at all that the followers show, again and again: each state has one number in all blocks
# (`whole`), or two that follow each other, the higher one in blocks that were written first.
cat >"$TMP/looker.py" <<'PY'
import mmap, os, sys, time
names, kind, stop = sys.argv[1].split(), sys.argv[2], sys.argv[3]
seen, held = {}, {}
def numbers(m):
    return [int.from_bytes(m[o:o + 8], "big") for o in range(0, len(m), 4096)]
def check(name, n):
    if kind == "whole":
        assert len(set(n)) == 1, (name, sorted(set(n)))
    else:
        assert max(n) - min(n) <= 1 and n == sorted(n, reverse=True), (name, n)
while not os.path.exists(stop):
    for name in names:
        try:
            f = open(name, "rb")
        except FileNotFoundError:
            continue
        n = numbers(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ))
        check(name, n)
        seen.setdefault(name, set()).add(max(n))
        # One that is kept open for a while does not change.
        if name in held:
            g, was = held[name]
            assert numbers(mmap.mmap(g.fileno(), 0, prot=mmap.PROT_READ)) == was, name
        if name not in held or len(seen[name]) % 3 == 0:
            held[name] = f, n
    time.sleep(0.02)
print({k: len(v) for k, v in seen.items()})
PY
# Writes a number into all blocks, in their order, slowly.
cat >"$TMP/writer.py" <<'PY'
import mmap, sys, time
with open(sys.argv[1], "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
number, stops = int(sys.argv[2]), float(sys.argv[3])
for block in range(len(m) // 4096):
    m[block * 4096:block * 4096 + 8] = number.to_bytes(8, "big")
    if block % 128 == 0:
        time.sleep(stops)
PY
followers=() names=
start_follower() { # I
	weft pull --watch --interval 0.05 --json "$URI" "$TMP/copy$1" >>"$TMP/follower$1" \
		2>>"$TMP/follower$1.err" &
	followers[$1]=$!
}
for ((i = 0; i < NR_FOLLOWERS; i++)); do
	start_follower "$i"
	names+="$TMP/copy$i "
done
start_looker() { # KIND
	rm -f "$TMP/stop"
	python3 "$TMP/looker.py" "$names" "$1" "$TMP/stop" >"$TMP/looked" 2>&1 &
	looker=$!
}
stop_looker() {
	touch "$TMP/stop"
	wait "$looker" || fail "a follower shows what never was: $(cat "$TMP/looked")"
	cat "$TMP/looked"
}
free() { ! weft status --json | jq '[.. | .mode? // empty] | any(. == "write")' | grep -q true; }
all_show() {
	local i
	for ((i = 0; i < NR_FOLLOWERS; i++)); do
		[[ -e $TMP/copy$i ]] && cmp -s "$TMP/file" "$TMP/copy$i" || return 1
	done
}

# The writer marks.  Nothing is shown before, and what is pushed without a mark never is.
start_looker whole
unmarked() { grep -q '"event": "unmarked"' "$TMP/follower0"; }
wait_for -t 60 unmarked
[[ ! -e $TMP/copy0 ]] || fail "shown without a mark"
for number in {1..8}; do
	python3 "$TMP/writer.py" "$TMP/file" "$number" 0.01
	if ((number % 4 == 3)); then # the file changes while this one pushes
		python3 "$TMP/writer.py" "$TMP/file" $((number + 100)) 0.01 &
		writer=$!
		weft push "$TMP/file" "$URI" >/dev/null || fail "push"
		wait "$writer"
		python3 "$TMP/writer.py" "$TMP/file" "$number" 0
	fi
	if ((number % 4 == 2)); then # killed somewhere
		weft push --mark "$TMP/file" "$URI" >/dev/null 2>&1 &
		pusher=$!
		sleep "0.0$number" # whenever: each moment is as good
		kill -KILL "$pusher" 2>/dev/null || :
		wait "$pusher" 2>/dev/null || :
		wait_for -t 60 free
	fi
	if ((number == 5)); then
		kill -KILL "${followers[1]}"
		wait "${followers[1]}" 2>/dev/null || :
		start_follower 1
	fi
	weft push --mark --json "$TMP/file" "$URI" >"$TMP/json" || fail "push: $(cat "$TMP/json")"
	((number % 2)) || wait_for -t 60 all_show
done
weft status | grep -q 'marked for those who follow it' || fail "$(weft status)"
weft list --json "weft://127.0.0.1:$PORT" | jq -e '.[0] | .marked and .mark_s >= 0' >/dev/null ||
	fail "list: $(weft list --json "weft://127.0.0.1:$PORT")"
stop_looker

# A push that watches finds the pauses, whatever is killed.
start_looker prefix
start_pusher() {
	weft push --watch --interval 0.05 --json "$TMP/file" "$URI" >>"$TMP/said" 2>>"$TMP/err" &
	pusher=$!
}
start_pusher
for number in {11..16}; do
	# What a follower shows may lie between two numbers, so each is one more than the last.
	python3 "$TMP/writer.py" "$TMP/file" $((number - 2)) 0.03
	case $number in
	12)
		kill -KILL "$pusher"
		wait "$pusher" 2>/dev/null || :
		wait_for -t 60 free
		start_pusher
		;;
	13)
		kill -KILL "${followers[2]}"
		wait "${followers[2]}" 2>/dev/null || :
		start_follower 2
		;;
	14)
		stop_donor KILL || :
		start_donor --allow-insecure --lease 5 --memory r=4M --listen "127.0.0.1:$PORT"
		;;
	esac
	wait_for -t 60 all_show
done
stop_looker
jq -es '[.[] | select(.settled and .marked)] | length >= 3' "$TMP/said" >/dev/null ||
	fail "no marks: $(cat "$TMP/said" "$TMP/err")"

# A writer that never pauses gets no mark, and who looks is told since when.
marks() { grep -c '"event": "marked"' "$TMP/follower0" || :; }
before=$(marks)
weft_mark_is_away() { weft status | grep -q 'no mark for those who follow it, for'; }
(exec 3<>"$TMP/file"
	for ((n = 0; n < 100000; n++)); do
		printf '%08d' "$n" | dd of=/dev/fd/3 bs=8 seek=1 conv=notrunc status=none
	done) &
restless=$!
wait_for -t 60 weft_mark_is_away
kill "$restless"
wait "$restless" 2>/dev/null || :
wait_for -t 60 all_show
(($(marks) > before)) || fail "nothing was marked after the pause"

# The mark stays when its writer leaves.
kill -INT "$pusher"
wait "$pusher" || grep -q 'weft-push: stopped: ' "$TMP/err" || fail "$(cat "$TMP/err")"
weft list --json "weft://127.0.0.1:$PORT" | jq -e '.[0].marked' >/dev/null || fail "it left"
for i in "${!followers[@]}"; do
	kill -INT "${followers[$i]}"
	wait "${followers[$i]}" || fail "follower $i: $(cat "$TMP/follower$i.err")"
done

# What cannot be followed.
mkdir "$TMP/folder"
weft pull --watch "$URI" "$TMP/folder" 2>"$TMP/err" && fail "a folder was replaced"
grep -q 'is no file, which could be replaced' "$TMP/err" || fail "$(cat "$TMP/err")"
