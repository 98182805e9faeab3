# SPDX-License-Identifier: MIT
# A donor is killed, or stopped for an upgrade, and goes on as the other version, and then as the
# first again, under bridges and programs of both versions: memory in the holder, its header, file
# marks. (The other version: the commit in tests/compat/wire-0.)
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/compat/lib.sh"
need_tool jq nbdcopy cmp git
build_old

# A library's program: writes what it is told to and keeps it open; says, when asked, whether the
# bytes are there still.
cat >"$TMP/use.c" <<-'C'
	#include <err.h>
	#include <stdio.h>
	#include <stdlib.h>
	#include <string.h>
	#include <weft.h>

	int main(int argc, char **argv)
	{
		size_t size = 1 << 20;
		char why[256], line[16], *image = malloc(size), *got = malloc(size);
		FILE *file = fopen(argv[2], "rb");
		struct weft *w;
		int r;

		if (!file || fread(image, size, 1, file) != 1)
			err(1, "%s", argv[2]);
		if (weft_open(argv[1], 0, &w, why, sizeof(why)) < 0)
			errx(1, "%s", why);
		if (weft_pwrite(w, image, size, 0) < 0 || weft_flush(w) < 0)
			errx(1, "it does not work");
		for (puts("ready"), fflush(stdout); fgets(line, sizeof(line), stdin) && *line != '.'; fflush(stdout)) {
			r = weft_pread(w, got, size, 0);
			printf("%s\n", r < 0 ? strerror(-r) : memcmp(image, got, size) ? "other bytes" : "works");
		}
		weft_close(w);
		return 0;
	}
C
gcc -I"$WEFT_SRC/nbd-bridge/library" "$TMP/use.c" -o "$TMP/use" -L"${libraries[old]}" -lweft

# Users: KIND-VERSION, which is the region's name too (below the directory, or not).
users=()
for version in old new; do
	users+=("memory-$version" "cache-$version" "file-$version" "directory-$version")
	# The library wants the sanitizer's first.
	[[ $WEFT_PRESET = asan && $version = new ]] || users+=("library-$version")
done
declare -A expected outcomes to from pid

socket_of() { # USER
	echo "nbd+unix:///?socket=$TMP/$1.s"
}

start_user() { # USER
	local options=(--socket "$TMP/$1.s") kind=${1%-*} version=${1#*-}
	expected[$1]=$TMP/$1.image outcomes[$1]=''
	random_file "${expected[$1]}" 1M
	if [[ $kind = library ]]; then
		mkfifo "$TMP/$1.in" "$TMP/$1.out"
		LD_LIBRARY_PATH=${libraries[$version]} "$TMP/use" "weft://127.0.0.1:$port/$1" \
			"${expected[$1]}" \
			<"$TMP/$1.in" >"$TMP/$1.out" 2>"$TMP/$1.err" &
		pid[$1]=$!
		exec {writing}>"$TMP/$1.in" {reading}<"$TMP/$1.out"
		to[$1]=$writing from[$1]=$reading
		read -r -t 20 -u "${from[$1]}" said || fail "$1: $(cat "$TMP/$1.err")"
		return
	fi
	[[ $kind != cache ]] ||
		options+=(--cache 4M --cache-file "$TMP/$1.cache" --push-interval 60)
	attach_of "$version" "weft://127.0.0.1:$port/$1" "${options[@]}" ||
		fail "$1: $(cat "$TMP/said")"
	copy --flush "${expected[$1]}" "$(socket_of "$1")" || fail "$1: $(cat "$TMP/copy")"
	[[ $kind != cache ]] || half_written "$1"
}

# The first half anew, and not flushed.
half_written() { # USER
	random_file "$TMP/half" 512K
	copy "$TMP/half" "$(socket_of "$1")" || fail "$1: $(cat "$TMP/copy")"
	dd if="$TMP/half" of="${expected[$1]}" conv=notrunc status=none
}

settled() { # USER
	[[ $(bridge_state "$1") = ready || $(bridge_state "$1") = stale ]] &&
		[[ $(weft status "$1" --json | jq '[.attachments[0].lanes[]? | select(.state != "ready" and .state != "stale" and .state != "ended")] | length') = 0 ]]
}

# After the donor was replaced: the same bytes, or an error with a reason.
check_user() { # USER
	local kind=${1%-*} version=${1#*-} said by
	if [[ $kind = library ]]; then
		echo >&"${to[$1]}"
		read -r -t 60 -u "${from[$1]}" said || fail "$1 hangs"
		case $said in
		works) ;;
		"Stale file handle") said=refused ;;
		*) fail "$1: $said" ;;
		esac
		outcomes[$1]+="${outcomes[$1]:+, }$said"
		return
	fi
	wait_for -t 30 settled "$1"
	if copy "$(socket_of "$1")" "$TMP/got"; then
		cmp "$TMP/got" "${expected[$1]}" || fail "$1: other bytes"
		random_file "${expected[$1]}" 1M
		copy --flush "${expected[$1]}" "$(socket_of "$1")" ||
			fail "$1 cannot be written: $(cat "$TMP/copy")"
		[[ $kind != cache ]] || half_written "$1"
		outcomes[$1]+="${outcomes[$1]:+, }works"
		return
	fi
	[[ $(bridge_state "$1") = stale ]] ||
		fail "$1 is $(bridge_state "$1"), and cannot be read: $(cat "$TMP/copy")"
	for by in old new; do
		is_understood "$(weft_of $by status "$1")" ||
			fail "$by's status says of $1: $(weft_of $by status "$1")"
	done
	if [[ $kind = cache ]]; then
		rm -f "$TMP"/saved{,.map}
		weft_of "$version" rescue "$1" "$TMP/saved" >/dev/null &&
			cmp -n $((512 << 10)) "$TMP/saved" "${expected[$1]}" ||
			fail "what $1 had not written back cannot be saved"
	fi
	outcomes[$1]+="${outcomes[$1]:+, }refused"
}

end_user() { # USER
	local kind=${1%-*} version=${1#*-}
	if [[ $kind = library ]]; then
		echo . >&"${to[$1]}"
		writing=${to[$1]} reading=${from[$1]}
		wait "${pid[$1]}" && exec {writing}>&- {reading}<&-
		rm "$TMP/$1.in" "$TMP/$1.out"
	else
		weft_of "$version" detach --force "$1" >"$TMP/out" 2>&1 ||
			[[ ${outcomes[$1]} = *refused* ]] || fail "$1: $(cat "$TMP/out")"
	fi
	[[ ${outcomes[$1]} = *refused* ]] || {
		donor_has "$1" "${expected[$1]}"
	} || fail "$1: other bytes at the donor in the end"
}

chain() { # VERSION SIGNAL HOW
	local first=$1 second regions=() user version
	second=$(other_version "$1")
	port=$(free_port)
	mkdir "$TMP/dir"
	for version in old new; do
		regions+=(--memory "memory-$version=1M" --memory "cache-$version=1M" --memory "library-$version=1M"
			--file "file-$version=$TMP/file-$version")
		truncate -s 1M "$TMP/file-$version" "$TMP/dir/directory-$version"
	done
	regions+=(--directory "$TMP/dir" --listen "127.0.0.1:$port")
	donor_of "$first" "${regions[@]}"
	for user in "${users[@]}"; do start_user "$user"; done
	for version in "$second" "$first"; do
		stop_donor "$2" || :
		donor_of "$version" "${regions[@]}"
		for user in "${users[@]}"; do
			[[ ${outcomes[$user]} = *refused ]] || check_user "$user"
		done
	done
	for user in "${users[@]}"; do
		end_user "$user"
		outcome "donor $3, $first then $second then $first: ${user%-*}, ${user#*-}" \
			"${outcomes[$user]}"
	done
	[[ $WEFT_PRESET != asan ]] ||
		tried+=("donor $3, $first then $second then $first: library, new")
	stop_donor || fail "the donor's exit status: $?"
	wait_for bash -c "! ls $WEFT_RUN_DIR/hold-*.sock"
	rm -r "$TMP/dir" "$TMP"/file-* "$TMP"/*.cache
}

for version in old new; do
	chain "$version" KILL killed
	chain "$version" USR2 upgraded
done
outcomes_agree "donor killed"
outcomes_agree "donor upgraded"
