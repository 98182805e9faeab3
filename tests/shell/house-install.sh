# SPDX-License-Identifier: MIT
# `cmake --install` gives a tree that works from wherever it is put.
# presets: release
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"

cmake --install "$WEFT_BUILD" --prefix "$TMP/one" >"$TMP/log" || fail "$(tail "$TMP/log")"
mv "$TMP/one" "$TMP/two"
cd "$TMP/two"
[[ $(bin/weft --version) = "weft "[0-9]* ]] || fail "weft --version"
for command in serve list attach detach status bench doctor key; do
	env -i PATH=/usr/bin:/bin bin/weft "$command" --help >"$TMP/help" ||
		fail "weft $command --help"
	grep -q "weft[ -]$command" "$TMP/help" || fail "weft $command --help: $(cat "$TMP/help")"
done
for file in lib/systemd/system/weft-serve.service lib/systemd/system/weft-serve.socket share/man/man1/weft.1 share/man/man1/weft-serve.1 share/man/man3/libweft.3 share/man/man7/weft-protocol.7; do
	[[ -s $file ]] || fail "no $file among $(find . -type f)"
done
[[ -n $(find . -name weft.pc) && -n $(find . -name 'libweft.so*') && -s include/weft.h ]] ||
	fail "no C library"

# bash finds the completion beside the programs, and it asks the installed ones.
# shellcheck disable=SC2016 # for the other bash
completed=$(env -i PATH="$PWD/bin:/usr/bin:/bin" bash -c '
	source share/bash-completion/completions/weft
	COMP_WORDS=(weft attach --device-kind u) COMP_CWORD=3
	_weft && echo "${COMPREPLY[*]}"')
[[ $completed = ublk ]] || fail "completed as '$completed'"
