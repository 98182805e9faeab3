# SPDX-License-Identifier: MIT
# Status of a bridge that was killed tells what is not at the donor, and the line that attaches it
# again, which works.  An attach that fails leaves no cache file that was not there before.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdcopy

start_donor --memory r=8M
random_file "$TMP/data" $((1 << 20))
mkdir "$TMP/it's here"
cd "$TMP/it's here"
weft attach "$URI" --socket "$TMP/s" --name my.disk --cache 4M --cache-file cache \
	--push-interval 60 --record-order 'my order' >/dev/null || fail "attach"
pid=$(weft status my.disk --json | jq '.attachments[0].pid')
nbdcopy "$TMP/data" "nbd+unix:///?socket=$TMP/s"
kill -KILL "$pid"
wait_for gone "$pid"
cd /
weft status my.disk >"$TMP/out"
grep -qF \
	"  1 MiB that are not at the donor are in $TMP/it's here/cache; attaching again writes them back, weft rescue saves them" "$TMP/out" || fail "$(cat "$TMP/out")"
line="weft attach $URI --socket $TMP/s --name my.disk --cache 4M --cache-file cache --push-interval 60 --record-order 'my order'"
grep -qxF "  attach it again, in $TMP/it's here: $line" "$TMP/out" || fail "$(cat "$TMP/out")"
[[ $(weft status --json | jq -r '.attachments[0] | .state, .unsaved_bytes, .attach_again, .directory') = "dead
1048576
$line
$TMP/it's here" ]] || fail "$(weft status --json)"
cd "$(weft status --json | jq -r '.attachments[0].directory')"
eval "$(weft status --json | jq -r '.attachments[0].attach_again')" >"$TMP/out" ||
	fail "the line does not work: $(cat "$TMP/out")"
nbdcopy "nbd+unix:///?socket=$TMP/s" "$TMP/got"
cmp -n $((1 << 20)) "$TMP/data" "$TMP/got" || fail "other bytes"
weft detach my.disk >/dev/null

echo "a failed attach leaves nothing"
fails() {
	! weft attach "$@" --cache 4M --cache-file "$TMP/new" >"$TMP/out" 2>&1 ||
		fail "attached: $*"
	[[ -z $(compgen -G "$WEFT_RUN_DIR/attach-*") ]] || fail "left behind: $(ls "$WEFT_RUN_DIR")"
}
fails "weft://127.0.0.1:$PORT/nothing" --socket "$TMP/s"
[[ ! -e $TMP/new ]] || fail "a new cache file is left by an attach that was refused"
fails "$URI" --socket "$TMP"
[[ ! -e $TMP/new ]] || fail "a new cache file is left by an attach without a socket"
(
	ulimit -f 1000 # KiB, of a file
	fails "$URI" --socket "$TMP/s"
)
grep -q "cannot make $TMP/new a cache of .*: File too large" "$TMP/out" || fail "$(cat "$TMP/out")"
[[ ! -e $TMP/new ]] || fail "a new cache file is left by an attach that had no room"
: >"$TMP/new"
fails "$URI" --socket "$TMP"
[[ -e $TMP/new ]] || fail "a file that was there before is gone"
