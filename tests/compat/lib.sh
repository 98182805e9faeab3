# SPDX-License-Identifier: MIT
# What the compatibility tests share.  Source it after tests/lib.sh.  `old` is the commit in
# tests/compat/wire-0, `new` is this tree.  README.md says what becomes of each pair.
# shellcheck shell=bash

compat=$WEFT_SRC/tests/compat
# shellcheck disable=SC2034 # tests use it
declare -A programs=([new]=$WEFT_BIN) libraries=([new]=$WEFT_BUILD/lib)

# other_version VERSION
other_version() {
	[[ $1 = old ]] && echo new || echo old
}

# build_old: out of this repository's own history; kept for the next run.  Sets programs[old] and
# libraries[old].
build_old() {
	local commit folder
	read -r commit <"$compat/wire-0"
	folder=$WEFT_SRC/build/compat/$commit
	if [[ ! -e $folder/built ]]; then
		git -C "$WEFT_SRC" cat-file -e "$commit^{commit}" 2>/dev/null ||
			skip "the commit of tests/compat/wire-0 ($commit) is not in this copy's" \
				"history, so its programs cannot be built"
		mkdir -p "$folder"
		(
			flock 9
			[[ ! -e $folder/built ]] || exit 0
			mkdir -p "$folder/source"
			git -C "$WEFT_SRC" archive "$commit" | tar -x -C "$folder/source"
			cmake -S "$folder/source" -B "$folder/build" -G Ninja \
				-DCMAKE_BUILD_TYPE=Debug -DWEFT_TESTS=OFF -DWEFT_PERF=OFF
			cmake --build "$folder/build" -j "$(nproc)" --target \
				weft weft-{serve,attach,detach,list,rescue,reset,status} \
				weftholder libweft
			touch "$folder/built"
		) 9>"$folder/lock" >"$TMP/build" 2>&1 ||
			fail "$commit does not build: $(tail -n 40 "$TMP/build")"
	fi
	programs[old]=$folder/build/bin
	# shellcheck disable=SC2034 # the same
	libraries[old]=$folder/build/lib
}

# weft_of VERSION ARGUMENT…: ended after a minute, as whoever waits for longer would.
weft_of() {
	timeout -k 5 60 "${programs[$1]}/weft" "${@:2}"
}

# donor_of VERSION ARGUMENT…: as start_donor
donor_of() {
	# What a donor promised whose place an old one took is kept, as the old one does not know of
	# it: others would wait a lease.
	[[ $1 = old ]] && rm -f "${WEFT_RUN_DIR:-/var/lib/weft}"/leases-*
	PATH=${programs[$1]}:$PATH start_donor "${@:2}"
}

# attach_of VERSION ARGUMENT…: what it says is in $TMP/said.
attach_of() {
	weft_of "$1" attach "${@:2}" >"$TMP/said" 2>&1
}

# What tells a person why the older one does not go on.
understood='epoch|superseded|lost its lease|said goodbye|could write since|not remembered|version|newer|older'

# is_understood TEXT
is_understood() {
	grep -Eq "$understood" <<<"$1"
}

bridge_pid() { # NAME
	weft status "$1" --json | jq ".attachments[0].pid"
}

bridge_state() { # NAME
	weft status "$1" --json | jq -r ".attachments[0].state"
}


# kill_bridge NAME
kill_bridge() {
	local pid
	pid=$(bridge_pid "$1")
	kill -KILL "$pid"
	wait_for gone "$pid"
}

# copy FROM TO…: nbdcopy, bounded; its answer to what cannot be read.
copy() {
	timeout -k 5 60 nbdcopy "$@" 2>"$TMP/copy"
}

# outcome CASE works|refused: held against the table in README.md; a row that is not there, or says
# otherwise, fails in the end.
differences=() tried=()
outcome() {
	local expected
	tried+=("$1")
	expected=$(awk -F ' *[|] *' -v what="$1" '$2 == what {print $3}' "$compat/README.md")
	printf '%-72s %s\n' "$1" "$2"
	[[ $expected = "$2" ]] || differences+=("| $1 | $2 |   not: ${expected:-in the table}")
}

# outcomes_agree PREFIX: with the table, which has no row of this prefix that was not tried either.
outcomes_agree() {
	local row
	while read -r row; do
		grep -qxF "$row" <<<"$(printf "%s\n" "${tried[@]}")" ||
			differences+=("| $row |   is in the table, and was not tried")
	done < <(awk -F ' *[|] *' -v prefix="$1" 'index($2, prefix) == 1 {print $2}' \
		"$compat/README.md")
	((${#differences[@]} == 0)) || {
		printf '%s\n' "${differences[@]}"
		fail "outcomes differ from tests/compat/README.md; if that is meant, change its table"
	}
}

# donor_has REGION IMAGE [BYTES]: a stock client finds the image there, once the region is free.
donor_has() {
	wait_for copy "nbd://127.0.0.1:$PORT/$1" "$TMP/got"
	cmp ${3:+-n"$3"} "$TMP/got" "$2"
}
