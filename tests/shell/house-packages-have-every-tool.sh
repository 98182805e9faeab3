# SPDX-License-Identifier: MIT
# Each tool that a test asks for comes with the packages that a fresh machine gets
# (fabric/packages test), or with what every Debian has: else a test would be skipped there.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool dpkg-query apt-cache

cd "$WEFT_SRC"
mapfile -t packages < <(fabric/packages --list cross)
{
	apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts \
		--no-breaks --no-replaces --no-enhances "${packages[@]}" | grep '^[a-z]'
	dpkg-query -W -f '${Essential} ${Priority} ${Package}\n' |
		sed -nE 's/^(yes [a-z]+|no required) //p'
} | sed 's/:.*//' | sort -u >"$TMP/packages"
# For each tool, the file as it may have been installed: through alternatives, and where / has /bin
# of its own.
while read -r tool; do
	path=$(command -v -- "$tool") || continue
	for file in "$path" "/usr$path" "${path#/usr}" "$(readlink -f "$path")"; do
		echo "$tool $file"
	done
done < <(sed -nE 's/^\s*need_tool ([^|;#]*).*/\1/p' tests/*.sh tests/shell/*.sh |
	tr ' ' '\n' | grep . | sort -u) >"$TMP/files"
# Those that no package has, somebody put there without one.
cut -d ' ' -f 2 "$TMP/files" | sort -u | xargs dpkg-query -S 2>/dev/null >"$TMP/owners" || :
awk 'NR == FNR {
		package = $1
		sub(/[:,].*/, "", package)
		of[$NF] = package
		next
	}
	$2 in of && !($1 in told) {
		told[$1]
		print $1, of[$2]
	}' "$TMP/owners" "$TMP/files" >"$TMP/tools"
while read -r tool package; do
	grep -qxF "$package" "$TMP/packages" ||
		fail "tests need $tool: the package $package belongs into fabric/packages"
done <"$TMP/tools"
nr=$(wc -l <"$TMP/tools")
((nr >= 20)) || fail "found only $nr tools"
