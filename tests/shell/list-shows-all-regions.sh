# SPDX-License-Identifier: MIT
# weft list: all regions of a big directory; where a donor tells only some, that there are more;
# nbdinfo of many regions.
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdinfo

mkdir -p "$TMP/many/000"
for ((i = 0; i < 1000; i++)); do
	echo x >"$TMP/many/000/$(printf %04d $i)"
done
copies() { # FIRST LAST [OPTION]: of that directory
	local i
	for ((i = $1; i <= $2; i++)); do
		cp -r "${@:3}" "$TMP/many/000" "$TMP/many/$(printf %03d "$i")"
	done
}
copies 1 10
start_donor --directory "$TMP/many"
weft list "weft://127.0.0.1:$PORT" --json >"$TMP/out" || fail "it failed"
[[ $(jq length "$TMP/out") = 11000 &&
	$(jq -r '.[10999] | "\(.name) \(.size_bytes) \(.offers)"' "$TMP/out") = "010/0999 2 tcp" \
		]] ||
	fail "$(jq length "$TMP/out"): $(jq '.[-1]' "$TMP/out")"

# More than a donor tells.
copies 11 100 -l
weft list "weft://127.0.0.1:$PORT/000/0007" >"$TMP/out" 2>"$TMP/err" &&
	fail "that there are more is not told"
grep -q "there are more regions" "$TMP/err" || fail "$(cat "$TMP/err")"
stop_donor

# nbdinfo waits 0.2 s for each region, which is more than ten seconds for all.
mapfile -t regions < <(printf -- '--memory=r%d=4K\n' {1..60})
start_donor "${regions[@]}"
nbdinfo --list --json "nbd://127.0.0.1:$PORT" >"$TMP/out" || fail "nbdinfo: $(tail -n 3 "$TMP/out")"
[[ $(jq '.exports | length' "$TMP/out") = 60 ]] || fail "$(jq '.exports | length' "$TMP/out")"
