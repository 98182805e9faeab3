# SPDX-License-Identifier: MIT
# weft list of a donor that tells only some of its 111,000 regions: that there are more; one that it
# does not tell is found by its name.
# tier: long
# timeout: 240
. "${BASH_SOURCE[0]%/*}/../lib.sh"

mkdir -p "$TMP/many/000"
for ((i = 0; i < 1000; i++)); do
	echo x >"$TMP/many/000/$(printf %04d $i)"
done
for ((i = 1; i <= 110; i++)); do
	cp -rl "$TMP/many/000" "$TMP/many/$(printf %03d "$i")"
done
# A key is for one in each directory: some of those are told.
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
