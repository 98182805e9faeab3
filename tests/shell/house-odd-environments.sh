# SPDX-License-Identifier: MIT
# What a program is started with may be odd: closed descriptors, ignored and blocked signals, any
# umask, few descriptors, no HOME, descriptors that do not wait.  Everything works all the same, or
# says why not.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq python3

start_donor --memory r=8M
random_file "$TMP/random" 65536
fronts=("--socket $TMP/s")
[[ ! -w /dev/fuse ]] || fronts=("--mount $TMP/f" "--mount $TMP/f --socket $TMP/s" "${fronts[@]}")
size_there() { # that the region is there, and its contents arrive at the donor
	local copy=$TMP/copy
	if [[ $1 = *--mount* ]]; then
		[[ $(stat -c %s "$TMP/f") = 8388608 ]] ||
			fail "$2, $1: a local file of $(stat -c %s "$TMP/f") bytes is told to be the region"
		dd if="$TMP/random" of="$TMP/f" conv=notrunc,fsync status=none
		! weft detach r >"$TMP/out" 2>&1 || weft attach "$URI" --mount "$TMP/f" >/dev/null
		cmp -n 65536 "$TMP/random" "$TMP/f" || fail "$2, $1: not at the donor"
	else
		nbdcopy "nbd+unix:///?socket=$TMP/s" "$copy" ||
			fail "$2, $1: the socket does not serve"
		[[ $(stat -c %s "$copy") = 8388608 ]] || fail "$2, $1: $(stat -c %s "$copy") bytes"
	fi
	weft detach r >/dev/null || fail "$2, $1: detach"
}

echo "closed descriptors"
for front in "${fronts[@]}"; do
	for how in '<&-' '>&-' '2>&-' '<&- >&-' '<&- >&- 2>&-'; do
		rm -f "$TMP/f"
		eval "weft attach $URI $front $how" >>"$TMP/log" ||
			fail "attach $how: $?: $(cat "$TMP/log")"
		for fd in 0 1 2; do
			[[ -e /proc/$(weft status r --json | jq '.attachments[0].pid')/fd/$fd ]] ||
				fail "$front $how: descriptor $fd is closed in the bridge"
		done
		size_there "$front" "$how"
	done
done
# No program of ours lets something else have a number of these: it would speak or listen to it.
commands=(serve attach detach list status bench line doctor rescue reset key pool)
# a sanitizer opens files of its own, and its leak check does not work under strace
[[ $WEFT_PRESET = dev ]] || commands=()
for command in "${commands[@]}"; do
	strace -f -qq -e trace=openat,open,socket,pipe2,epoll_create1,eventfd2 -o "$TMP/trace" \
		"weft-$command" --help <&- >&- 2>&- || :
	first=$(grep -vE ' = -1 |ld.so.cache|O_RDONLY\|O_CLOEXEC\) = 0$' "$TMP/trace" | grep -E '= [012]$' | grep -v /dev/null || :)
	[[ -z $first ]] || fail "weft-$command: $first"
	for fd in 0 1 2; do
		grep -qE "/dev/null.* = $fd$" "$TMP/trace" ||
			fail "weft-$command leaves descriptor $fd closed"
	done
done
# What cannot be printed is no success.
! weft status >&- 2>/dev/null || fail "weft status succeeds although nobody can read what it says"

echo "a donor without descriptors"
weft-serve --listen "unix:$TMP/donor" --memory other=1M <&- >&- 2>&- &
donor=$!
wait_for weft list "weft+unix:///?socket=$TMP/donor" >/dev/null
kill "$donor"
wait "$donor" || fail "the donor's end: $?"

front=${fronts[0]}
echo "signals"
cat >"$TMP/odd.py" <<'PY'
import os, signal, sys
how, command = sys.argv[1], sys.argv[2:]
if how == "ignored":
    for s in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(s, signal.SIG_IGN)
else:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(command[0], command)
PY
for how in ignored blocked; do
	# shellcheck disable=SC2086 # words
	python3 "$TMP/odd.py" "$how" weft attach "$URI" $front >"$TMP/log" 2>&1 ||
		fail "signals $how: $(cat "$TMP/log")"
	size_there "$front" "signals $how"
	# shellcheck disable=SC2086 # words
	python3 "$TMP/odd.py" "$how" weft attach "$URI" $front >"$TMP/log" 2>&1 ||
		fail "signals $how: $(cat "$TMP/log")"
	pid=$(weft status r --json | jq '.attachments[0].pid')
	kill -TERM "$pid"
	wait_for gone "$pid"
	# What asks for so long is ended by a signal of its own.
	mkfifo "$TMP/fifo"
	python3 "$TMP/odd.py" "$how" weft list "$URI" >/dev/null || fail "weft list, signals $how"
	rm "$TMP/fifo"
done

echo "umask, no HOME, few descriptors"
for mask in 0 0777; do
	(
		umask $mask
		# shellcheck disable=SC2086 # words
		env -u HOME -u XDG_RUNTIME_DIR weft attach "$URI" $front >"$TMP/log" 2>&1
	) || fail "umask $mask: $(cat "$TMP/log")"
	for file in "$WEFT_RUN_DIR"/attach-r.*; do
		[[ $(stat -c %a "$file") = 600 ]] ||
			fail "umask $mask: $file has mode $(stat -c %a "$file")"
	done
	size_there "$front" "umask $mask"
done
(
	ulimit -Sn 10
	# shellcheck disable=SC2086 # words
	weft attach "$URI" $front >"$TMP/log" 2>&1
) || fail "ulimit -Sn 10: $(cat "$TMP/log")"
size_there "$front" "ulimit -Sn 10"
status=0
(
	ulimit -n 12
	# shellcheck disable=SC2086 # words
	weft attach "$URI" $front >"$TMP/log" 2>&1
) || status=$?
[[ $status = 1 && $(cat "$TMP/log") = *"Too many open files"* ]] ||
	fail "ulimit -n 12: exit $status: $(cat "$TMP/log")"

echo "a pipe that does not wait gets everything"
cat >"$TMP/slow.py" <<'PY'
import os, subprocess, sys, time
r, w = os.pipe()
os.set_blocking(w, False)
while True:
    try: os.write(w, b"x" * 65536)
    except BlockingIOError: break
child = subprocess.Popen(["weft-status", "--help"], stdout=w)
time.sleep(0.5)
shared = not os.get_blocking(w)
os.close(w)
text = b""
while True:
    one = os.read(r, 65536)
    if not one: break
    text += one
sys.exit(0 if child.wait() == 0 and b"--prometheus" in text and shared else 1)
PY
python3 "$TMP/slow.py" || fail "what was printed is lost, or our caller's pipe was changed"
