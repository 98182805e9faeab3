# SPDX-License-Identifier: MIT
# The probes that perf/README.md lists are in the bridge, with as many arguments; and in libweft,
# which has no front-end.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool readelf
[[ -e /usr/include/sys/sdt.h || -n $(compgen -G "/usr/include/*/sys/sdt.h") ]] ||
	skip "built without probes: sys/sdt.h is not installed"

# "| `submit` | `rq, lane, kind` | …" becomes "submit 3".
# shellcheck disable=SC2016 # those are the ones of the page
sed -n 's/^| `\([a-z]*\)` | `\([a-z, ]*\)` |.*/\1 \2/p' "$WEFT_SRC/perf/README.md" |
	awk '{ print $1, NF - 1 }' | sort -u >"$TMP/listed"
[[ -s $TMP/listed ]] || fail "perf/README.md lists no probes"
probes_of() {
	readelf -n "$1" | awk '
		$1 == "Provider:" { provider = $2 }
		$1 == "Name:" { name = $2 }
		$1 == "Arguments:" && provider == "weft" { print name, NF - 1 }' | sort -u
}
diff "$TMP/listed" <(probes_of "$WEFT_BIN/weft-attach") ||
	fail "the probes that are listed (<) and those of the bridge (>) differ"
diff <(grep -v '^sent ' "$TMP/listed") <(probes_of "$WEFT_BUILD/lib/libweft.so") ||
	fail "the probes that are listed (<) and those of libweft (>) differ"
