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
# More than a donor has open at a time.
copies 1 4
start_donor --directory "$TMP/many"
weft list "weft://127.0.0.1:$PORT" --json >"$TMP/out" || fail "it failed"
[[ $(jq length "$TMP/out") = 5000 &&
	$(jq -r '.[4999] | "\(.name) \(.size_bytes) \(.offers)"' "$TMP/out") = "004/0999 2 tcp" \
		]] ||
	fail "$(jq length "$TMP/out"): $(jq '.[-1]' "$TMP/out")"
stop_donor

# More than a donor tells, of which a key is for one in each directory: some of those are told.
copies 5 110 -l
mine=()
for ((i = 0; i <= 110; i++)); do mine+=(--region "$(printf %03d/0000 "$i")"); done
weft key new few --store "$TMP/keys" --out "$TMP/key" "${mine[@]}" >/dev/null || fail "no key"
start_donor --directory "$TMP/many" --keys "$TMP/keys"
list() { weft list "weft://127.0.0.1:$PORT$1" --key "$TMP/key"; }
list '' >"$TMP/out" 2>"$TMP/err" && fail "that there are more is not told"
grep -q "there are more regions" "$TMP/err" || fail "$(cat "$TMP/err")"
# One that it does not tell is found by its name.  (The first donor has opened other links to the
# same file, and a file is lent once: a new donor.)
stop_donor
start_donor --directory "$TMP/many" --keys "$TMP/keys"
comm -13 <(cut -d ' ' -f 1 "$TMP/out" | sort) <(printf '%s\n' "${mine[@]}" | grep / | sort) \
	>"$TMP/untold"
name=$(head -n 1 "$TMP/untold")
[[ $name ]] || fail "all regions are told"
list "/$name" >"$TMP/out" 2>&1 || fail "$name: $(cat "$TMP/out")"
grep -q "^$name .* 2 B " "$TMP/out" || fail "$name: $(cat "$TMP/out")"
list /nothing >"$TMP/out" 2>&1 && fail "$(cat "$TMP/out")"
grep -qx "weft-list: there is no region 'nothing' there" "$TMP/out" || fail "$(cat "$TMP/out")"
stop_donor

# nbdinfo waits 0.2 s for each region, which is more than ten seconds for all.
mapfile -t regions < <(printf -- '--memory=r%d=4K\n' {1..60})
start_donor "${regions[@]}"
nbdinfo --list --json "nbd://127.0.0.1:$PORT" >"$TMP/out" || fail "nbdinfo: $(tail -n 3 "$TMP/out")"
[[ $(jq '.exports | length' "$TMP/out") = 60 ]] || fail "$(jq '.exports | length' "$TMP/out")"
