# SPDX-License-Identifier: MIT
# bash completes commands, options and their values, paths, names of attachments and URIs of
# regions; an interactive bash does, too.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

cat >"$TMP/complete" <<'INNER'
# complete WORD…: what bash is given for a line of these words, of which the last is being typed.
source "$WEFT_SRC/fabric/completion/weft"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_weft
printf '%s\n' "${COMPREPLY[@]}" | sort
INNER
# gives "WORD…" EXPECTED…: exactly these; words as bash cuts them, at '=' and ':' too.
gives() {
	local -a words
	read -ra words <<<"$1"
	[[ $1 != *' ' ]] || words+=('') # a word that was not begun
	shift
	printf '%s\n' "$@" | sort >"$TMP/wanted"
	bash "$TMP/complete" "${words[@]}" >"$TMP/got" 2>"$TMP/err" ||
		fail "${words[*]}: $(<"$TMP/err")"
	[[ ! -s $TMP/err ]] || fail "${words[*]}: $(<"$TMP/err")"
	diff "$TMP/wanted" "$TMP/got" || fail "for '${words[*]}' (<) was expected, (>) is"
}

gives "weft re" rescue reset
gives "weft help re" rescue reset
gives "weft de" detach
gives "weft nonsense --" ""
gives "weft status --" --json --prometheus --explain --debug --help
gives "weft attach weft : //a/r --device" --device --device-kind
gives "weft attach --device-kind " auto ublk nbd
gives "weft attach --device-kind = u" ublk
gives "weft serve --numa " nic interleave
gives "weft key r" revoke rotate
gives "weft key new no" ""
gives "weft serve --hugepages 2" 2M
gives "weft attach --name " ""
gives "weft attach --debug = l" lane link
gives "weft attach --debug = base,li" base,link
mkdir "$TMP/d" "$TMP/d/inner"
touch "$TMP/d/inside" "$TMP/d/other"
gives "weft attach --cache-file $TMP/d/in" "$TMP/d/inner" "$TMP/d/inside"
gives "weft attach --device $TMP/d/o" "$TMP/d/other"
gives "weft bench --json = $TMP/d/o" "$TMP/d/other"
gives "weft serve --directory $TMP/d/in" "$TMP/d/inner"

echo "names"
gives "weft detach " ""
start_donor --memory scratch=8M --memory other=8M
weft attach "$URI" --socket "$TMP/s" --name my.disk >/dev/null
gives "weft detach " my.disk
gives "weft detach --force m" my.disk
gives "weft status " my.disk
gives "weft reset --discard my" my.disk
gives "weft attach w" "weft://127.0.0.1:$PORT/scratch" "weft://127.0.0.1:$PORT/other"
# The word that bash completes is what is behind the last ':'.
gives "weft bench weft : //127.0.0.1 : $PORT/s" "$PORT/scratch"
weft detach my.disk >/dev/null
stop_donor
gives "weft attach w" ""

echo "a name that has a shell's characters"
cat >"$TMP/odd" <<'INNER'
source "$WEFT_SRC/fabric/completion/weft"
cur=x
_weft_words "$(printf 'x$(>%s)\n' "$TMP/expanded")"
[[ ${#COMPREPLY[@]} = 1 && ${COMPREPLY[0]} = 'x\$\(\>'* ]] || echo "wrong: ${COMPREPLY[*]}"
INNER
[[ -z $(bash "$TMP/odd") && ! -e $TMP/expanded ]] || fail "it is expanded, or not quoted"

echo "an address in brackets, which are a shell's characters"
cat >"$TMP/brackets" <<'INNER'
source "$WEFT_SRC/fabric/completion/weft"
weft=$TMP/told COMP_WORDBREAKS=':='
for cur in 'weft://[::1]:1' 'weft://\[::1\]:1' 'weft:/'; do
	_weft_value uri ''
	printf '%s\n' "${COMPREPLY[@]}"
done
INNER
printf '#!/bin/sh\necho "weft://[::1]:10809/scratch"\n' >"$TMP/told"
chmod +x "$TMP/told"
export TMP
diff <(printf '%s\n' 10809/scratch 10809/scratch '//\[::1\]:10809/scratch') \
	<(bash "$TMP/brackets") || fail "(<) was expected, (>) is"

echo "an interactive bash"
cat >"$TMP/interactive.py" <<'INNER'
import os, pty, select, sys, time

pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "dumb"
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])


seen = ""


def type_and_see(typed, text):
    global seen
    os.write(fd, typed.encode())
    end = time.time() + 30
    while text not in seen:
        left = end - time.time()
        if left < 0 or not select.select([fd], [], [], left)[0]:
            sys.exit("typed %r: no %r in %r" % (typed, text, seen))
        seen += os.read(fd, 4096).decode()
    # What came together with it may be what is waited for next.
    seen = seen[seen.index(text) + len(text):]


type_and_see("PS1='re''ady> '; source $WEFT_SRC/fabric/completion/weft\n", "ready> ")
type_and_see("weft det\t--fo\t\n", "weft detach --force ")
type_and_see("", "weft-detach: which one?")
type_and_see("weft attach --device-kind=u\t--la\t3\n", "--device-kind=ublk --lanes 3")
type_and_see("exit\n", "exit")
os.waitpid(pid, 0)
INNER
python3 "$TMP/interactive.py" || fail "an interactive bash completes something else"
