# SPDX-License-Identifier: MIT
# The line that attaches again after a bridge was killed has --owner as it was given: with the
# group.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
[[ -w /dev/fuse ]] || skip "no /dev/fuse"
need_tool jq

start_donor --memory r=8M
owner=$(id -un):$(id -gn)
weft attach "$URI" --mount "$TMP/file" --owner "$owner" >/dev/null
pid=$(weft status r --json | jq '.attachments[0].pid')
kill -KILL "$pid"
wait_for gone "$pid"
line=$(weft status r --json | jq -r '.attachments[0].attach_again')
[[ $line = "weft attach $URI --mount $TMP/file --owner $owner" ]] || fail "$line"
weft detach r >/dev/null
