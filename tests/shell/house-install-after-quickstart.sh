# SPDX-License-Identifier: MIT
# What fabric/quickstart builds is all that `cmake --install` wants.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool ninja

# The target that it builds, asked in a tree of its own where nothing is built.
target=$(sed -n 's/.*cmake --build build\/release --target \([a-z]*\) .*/\1/p' "$WEFT_SRC/fabric/quickstart")
[[ $target ]] || fail "fabric/quickstart builds no target that this test can find"
cd "$WEFT_SRC"
cmake --preset release -B "$TMP/b" >"$TMP/log" 2>&1 || fail "$(tail "$TMP/log")"
ninja -C "$TMP/b" -t query "$target" | sed "/outputs:/,\$d; s/^ *//" >"$TMP/built"
mapfile -t wanted < \
	<(find "$TMP/b" -name cmake_install.cmake -exec grep -hoE "\"$TMP/b/[^\"]*\"" {} + | tr -d '"' | sort -u)
((${#wanted[@]} > 10)) || fail "found only ${#wanted[@]} files to install: ${wanted[*]}"
for file in "${wanted[@]}"; do
	[[ $file != *\$* && $file != *: &&
		$file != */cmake_install.cmake && $file != */install_*manifest* &&
		$file != */weft-*.service && ! -e $file ]] || continue
	[[ $file != *.so.* ]] || file=${file%%.so.*}.so # its links come with it
	grep -qxF "${file#"$TMP/b/"}" "$TMP/built" ||
		fail "'$target' does not build ${file#"$TMP/b/"}, which is installed"
done
