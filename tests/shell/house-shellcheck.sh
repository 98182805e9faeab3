# SPDX-License-Identifier: MIT
# Every shell script of the project passes shellcheck.
# processors: 2
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool shellcheck

cd "$WEFT_SRC"
mapfile -t scripts < <({
	find . -name '*.sh' -not -path './build/*'
	grep -rlIE --exclude-dir=build \
		--exclude-dir=.git '^#!.*(/|env )(ba)?sh( |$)|^# shellcheck shell=bash$' .
} | sort -u)
((${#scripts[@]} >= 5)) || fail "found only ${scripts[*]}"
# lib.sh sets -e, which shellcheck does not see from here.
printf '%s\0' "${scripts[@]}" | xargs -0 -P 2 -n 32 \
	shellcheck -x -P "$WEFT_SRC/tests" -e SC1090,SC1091,SC2015,SC2164 -s bash
