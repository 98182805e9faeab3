# SPDX-License-Identifier: MIT
# A cache in a file: what was written and not flushed outlives a kill -9 of the bridge, is written
# back by the next, or saved; nothing else is taken for it.
# presets: dev asan
# timeout: 180
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool fio jq nbdcopy cmp

start_donor --memory r=64M --memory other=64M
OTHER=${URI%/*}/other
cached=(--socket "$TMP/s" --cache 32M --cache-file "$TMP/cache" --push-interval 60)
socket="nbd+unix:///?socket=$TMP/s"
cache() { weft status r --json | jq ".attachments[0].cache.$1"; }
kill_bridge() {
	local pid
	pid=$(weft status r --json | jq '.attachments[0].pid')
	kill -KILL "$pid"
	# shellcheck disable=SC2317 # wait_for calls it
	gone() { ! kill -0 "$pid" 2>/dev/null; }
	wait_for gone
}
refused() { # TEXT ARGUMENT…: a command that says so
	"${@:2}" >"$TMP/out" 2>"$TMP/err" && fail "${*:2} was taken"
	grep -q -- "$1" "$TMP/err" || fail "${*:2} said: $(cat "$TMP/err")"
}

weft attach "$URI" "${cached[@]}" >"$TMP/said" || fail "attach"
grep -q "  cache file $TMP/cache\$" "$TMP/said" || fail "it said: $(cat "$TMP/said")"
[[ $(stat -c %a "$TMP/cache") = 600 ]] || fail "others may read the file"
refused "is the cache of another attachment" weft attach "$OTHER" "${cached[@]}" --socket "$TMP/s2"

# Killed with 8 MiB that the donor does not have, in a file that nobody else gets.
head -c 8M /dev/urandom >"$TMP/data"
nbdcopy --flush "$TMP/data" "$socket" || fail "nbdcopy"
random_file "$TMP/new" $((8 << 20))
nbdcopy "$TMP/new" "$socket" || fail "nbdcopy"
(($(cache dirty_bytes) == 8 << 20)) || fail "dirty: $(cache dirty_bytes)"
kill_bridge
nbdcopy --request-size=262144 "nbd://127.0.0.1:$PORT/r" "$TMP/donor" 2>/dev/null &&
	cmp -n $((8 << 20)) "$TMP/donor" "$TMP/new" &&
	fail "the donor has it already: this shows nothing"
refused "8 MiB that are not at the donor" weft attach "$OTHER" --name other "${cached[@]}"
refused "are not at the donor of $URI; go on with that and --cache-file $TMP/cache" weft attach \
	"$URI" --socket "$TMP/s"
refused "go on with that and --cache-file" weft attach "$OTHER" --name r --socket "$TMP/s"
refused "attach it again with --cache-file" weft detach r
# Nor is it passed over while somebody else has it.
exec 9<"$TMP/cache"
flock 9
refused "left in its cache file cannot be seen: .*being rescued" weft attach "$URI" \
	--socket "$TMP/s"
refused "left in its cache file cannot be seen: .*being rescued" weft detach r
exec 9<&-
weft rescue "$TMP/cache" "$TMP/saved" >"$TMP/out" || fail "rescue"
grep -q "8 MiB that were not at the donor, 0 B that were" "$TMP/out" ||
	fail "rescue said: $(cat "$TMP/out")"
cmp -n $((8 << 20)) "$TMP/saved" "$TMP/new" || fail "what was saved is something else"
[[ $(stat -c %s "$TMP/saved") = $((64 << 20)) &&
	$(grep -v '^#' "$TMP/saved.map") = "0 8388608 dirty" ]] ||
		fail "map: $(cat "$TMP/saved.map")"
refused "exists already" weft rescue "$TMP/cache" "$TMP/saved"
(cd "$TMP" && weft rescue cache again >/dev/null) || fail "a file of this directory is not found"
cmp "$TMP/again" "$TMP/saved" || fail "it saved something else"

# The next one goes on, and writes it back first.
weft attach "$URI" "${cached[@]}" >"$TMP/said" || fail "attach anew"
grep -q "with what a bridge that died had not written back" "$TMP/said" ||
	fail "it said: $(cat "$TMP/said")"
# shellcheck disable=SC2317 # the same
clean() { (($(cache dirty_bytes) == 0)); }
wait_for clean
nbdcopy "$socket" "$TMP/got" || fail "nbdcopy"
cmp -n $((8 << 20)) "$TMP/got" "$TMP/new" || fail "it went on with something else"
weft rescue r "$TMP/live" >"$TMP/out" || fail "rescue of a bridge that lives"
grep -q "0 B that were not at the donor, 32 MiB that were\|that were not at the donor, .* that were" "$TMP/out" || fail "rescue: $(cat "$TMP/out")"
while read -r off len _; do
	cmp -i "$off" -n "$len" "$TMP/live" "$TMP/got" || fail "saved something else at $off"
done < <(grep -v '^#' "$TMP/live.map")
weft detach r || fail "detach"
refused "there is nothing to rescue" weft rescue "$TMP/cache" "$TMP/nothing"
weft attach "$OTHER" --name other "${cached[@]}" >/dev/null ||
	fail "a file that is done with is not used for another region"
weft detach other

# It was given up, and another wrote: what is in the file is not written over that.
weft attach "$URI" "${cached[@]}" >/dev/null || fail "attach"
nbdcopy "$TMP/data" "$socket" || fail "nbdcopy"
kill_bridge
weft detach --force r >"$TMP/out" || fail "detach --force: $(cat "$TMP/out")"
grep -q "are in $TMP/cache still" "$TMP/out" || fail "it said: $(cat "$TMP/out")"
weft attach "$URI" --socket "$TMP/s" >/dev/null || fail "direct"
nbdcopy "$TMP/new" "$socket" || fail "nbdcopy"
weft detach r
refused "did not hold the region for a while.*is still in $TMP/cache" weft attach "$URI" \
	"${cached[@]}"
nbdcopy "nbd://127.0.0.1:$PORT/r" "$TMP/donor" && cmp -n $((8 << 20)) "$TMP/donor" "$TMP/new" ||
	fail "it was written over"
weft rescue "$TMP/cache" "$TMP/saved2" >/dev/null &&
	cmp -n $((8 << 20)) "$TMP/saved2" "$TMP/data" || fail "it cannot be saved"

# What is no cache file, or damaged, is left alone.
cp "$TMP/data" "$TMP/precious"
refused "something else, or damaged" weft attach "$OTHER" --name o --socket "$TMP/s" --cache 32M \
	--cache-file "$TMP/precious"
cmp "$TMP/data" "$TMP/precious" || fail "it was changed"
truncate -s -4096 "$TMP/cache"
refused "something else, or damaged" weft rescue "$TMP/cache" "$TMP/saved3"
refused "No such file or directory" weft attach "$OTHER" --name o --socket "$TMP/s" --cache 32M \
	--cache-file "$TMP/none/cache"
exit 0
