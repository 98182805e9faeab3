# SPDX-License-Identifier: MIT
# weft list: all regions of a big directory, which are more than a donor has open at a time; nbdinfo
# of many regions.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq nbdinfo

mkdir -p "$TMP/many/000"
for ((i = 0; i < 1000; i++)); do
	echo x >"$TMP/many/000/$(printf %04d $i)"
done
for i in {1..4}; do cp -r "$TMP/many/000" "$TMP/many/00$i"; done
start_donor --directory "$TMP/many"
weft list "weft://127.0.0.1:$PORT" --json >"$TMP/out" || fail "it failed"
[[ $(jq length "$TMP/out") = 5000 &&
	$(jq -r '.[4999] | "\(.name) \(.size_bytes) \(.offers)"' "$TMP/out") = "004/0999 2 tcp" \
		]] ||
	fail "$(jq length "$TMP/out"): $(jq '.[-1]' "$TMP/out")"
stop_donor

# nbdinfo waits 0.2 s for each region, which is more than ten seconds for all.
mapfile -t regions < <(printf -- '--memory=r%d=4K\n' {1..60})
start_donor "${regions[@]}"
nbdinfo --list --json "nbd://127.0.0.1:$PORT" >"$TMP/out" || fail "nbdinfo: $(tail -n 3 "$TMP/out")"
[[ $(jq '.exports | length' "$TMP/out") = 60 ]] || fail "$(jq '.exports | length' "$TMP/out")"
