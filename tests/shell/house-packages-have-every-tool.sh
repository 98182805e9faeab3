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
nr=0
while read -r tool; do
	path=$(command -v -- "$tool") || continue
	# The file as it was installed: through alternatives, and where / has /bin of its own.
	for file in "$path" "/usr$path" "${path#/usr}" "$(readlink -f "$path")"; do
		package=$(dpkg-query -S "$file" 2>/dev/null | sed -n "1s/:.*//p") || :
		[[ ! $package ]] || break
	done
	# What somebody put there without a package.
	[[ $package ]] || continue
	grep -qxF "$package" "$TMP/packages" ||
		fail "tests need $tool: the package $package belongs into fabric/packages"
	nr=$((nr + 1))
done < <(sed -nE 's/^\s*need_tool ([^|;#]*).*/\1/p' tests/*.sh tests/shell/*.sh |
	tr ' ' '\n' | grep . | sort -u)
((nr >= 20)) || fail "found only $nr tools"
