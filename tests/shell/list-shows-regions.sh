# SPDX-License-Identifier: MIT
# weft list: each region of a donor, as a table and as JSON; foreign servers; no donor.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdkit socat

head -c 12345 /dev/zero >"$TMP/f"
start_donor --memory r=1M --memory äöü=1M --file "text=$TMP/f"
weft list "weft://127.0.0.1:$PORT" >"$TMP/out"
grep -Eq '^r +1 MiB +read-write +tcp +[0-9a-f]{16}  memory' "$TMP/out" || fail "$(cat "$TMP/out")"
# A letter of more than a byte takes one column.
columns() (
	LC_ALL=C.UTF-8
	while read -r line; do
		line=${line%%read-write*}
		echo ${#line}
	done
)
[[ $(grep read-write "$TMP/out" | columns | sort -u | wc -l) = 1 ]] || fail "$(cat "$TMP/out")"
weft list "weft://127.0.0.1:$PORT" --json |
	jq -e 'length == 3 and (.[] | select(.name == "text") | .size_bytes == 12345)' \
	>/dev/null || fail "$(weft list "weft://127.0.0.1:$PORT" --json)"
weft list "weft://127.0.0.1:$PORT" --json | jq -r '.[] | keys[]' | sort -u >"$TMP/keys"
words='description epoch mark_s marked name offers read_only size_bytes tenure '
[[ $(tr '\n' ' ' <"$TMP/keys") = "$words" ]] ||
	fail "keys: $(cat "$TMP/keys")"
while read -r key; do
	grep -q "$key" "$WEFT_SRC/fabric/man/weft-list.1" || fail "weft-list(1) does not name $key"
done <"$TMP/keys"
weft list "$URI" | grep -q text && fail "one region was asked for"
! weft list "weft://127.0.0.1:$PORT/nope" 2>"$TMP/err" || fail "nope"
grep -q "no region 'nope'" "$TMP/err" || fail "$(cat "$TMP/err")"
! weft list "weft://127.0.0.1:$(free_port)" 2>"$TMP/err" || fail "no donor"
grep -q 'is weft serve running there?' "$TMP/err" || fail "$(cat "$TMP/err")"
nbdkit -U "$TMP/nbdkit" -P "$TMP/pid" --exit-with-parent -f null 1M &
wait_for test -s "$TMP/pid"
weft list "nbd+unix:///?socket=$TMP/nbdkit" | grep -Eq '1 MiB +read-write +tcp' || fail "nbdkit"
! weft list 2>/dev/null || fail "no URI"
# SRP has no such question: there is no listing of what another's target has.
status=0
weft list srp://127.0.0.1:5555/1 2>"$TMP/err" || status=$?
[[ $status = 2 ]] || fail "an SRP target: exit status $status"
grep -q 'an SRP target tells nobody what it has' "$TMP/err" || fail "$(cat "$TMP/err")"
# What a server names its exports is nobody's order to the terminal.
nbdkit -U "$TMP/hostile" -P "$TMP/hostile.pid" --exit-with-parent -f --filter=exportname null 1M \
	exportname=$'a\e[31mb' exportname-list=explicit exportdesc=fixed:$'c\e[31md' &
wait_for test -s "$TMP/hostile.pid"
weft list "nbd+unix:///?socket=$TMP/hostile" >"$TMP/out" || fail "$(cat "$TMP/out")"
grep -q '^a?\[31mb .* c?\[31md$' "$TMP/out" || fail "$(cat -v "$TMP/out")"

# More regions than options that a donor takes of one connection.
mkdir "$TMP/many"
for ((i = 0; i < 700; i++)); do
	echo x >"$TMP/many/f$i"
done
start_donor --directory "$TMP/many"
[[ $(weft list "weft://127.0.0.1:$PORT" | grep -c ' 2 B  read-write ') = 700 ]] ||
	fail "$(weft list "weft://127.0.0.1:$PORT" | grep -v read-write | head -n 3)"
# It ends before it is asked about the last of them.
socat "UNIX-LISTEN:$TMP/once" "TCP:127.0.0.1:$PORT" &
wait_for test -S "$TMP/once"
! weft list "weft+unix:///?socket=$TMP/once" >/dev/null 2>"$TMP/err" || fail "it has gone on"
grep -q "no donor at $TMP/once" "$TMP/err" || fail "$(cat "$TMP/err")"
# A name with a control character is nobody's order to the terminal.
! weft list "weft://127.0.0.1:$PORT/%1b%5b31m" 2>"$TMP/err" || fail "it is there"
! grep -q $'\e' "$TMP/err" || fail "an escape sequence"
# A donor that takes connections and says nothing.
kill -STOP "$DONOR_PID"
cleanup_add "kill -CONT $DONOR_PID"
! timeout 60 weft list "weft://127.0.0.1:$PORT" 2>"$TMP/err" || fail "it answered"
grep -q 'waiting for an answer of 127.0.0.1, up to 10 s' "$TMP/err" || fail "$(cat "$TMP/err")"
grep -q 'cannot list 127.0.0.1: it does not answer' "$TMP/err" || fail "$(cat "$TMP/err")"
