# SPDX-License-Identifier: MIT
# Programs of the commit in tests/compat/wire-0 and today's, both ways: attach, list, status,
# rescue, reset, detach, libweft.
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/compat/lib.sh"
need_tool jq nbdcopy cmp git
build_old

mkdir "$TMP/dir"
random_file "$TMP/image" 4M
random_file "$TMP/later" 2M
declare -A region=([memory]=m [file]=f [directory]=d)

at_donor() { # KIND IMAGE: what a stock client gets there
	donor_has "${region[$1]}" "$2"
}

# through FRONT IMAGE: the image into the region, flushed, and back
through() {
	case $1 in
	mount)
		timeout 60 dd if="$2" of="$TMP/mnt" bs=1M conv=notrunc,fsync status=none &&
			timeout 60 dd if="$TMP/mnt" of="$TMP/got" bs=1M iflag=direct status=none
		;;
	*)
		copy --flush "$2" "nbd+unix:///?socket=$TMP/s" &&
			copy "nbd+unix:///?socket=$TMP/s" "$TMP/got"
		;;
	esac && cmp "$2" "$TMP/got"
}

use_front() { # KIND DONOR BRIDGE FRONT
	local name=${region[$1]} options=(--socket "$TMP/s") version said
	case $4 in
	mount) options=(--mount "$TMP/mnt") ;;
	cache) options+=(--cache 4M --cache-file "$TMP/cache") ;;
	esac
	attach_of "$3" "weft://127.0.0.1:$PORT/$name" "${options[@]}" || {
		is_understood "$(cat "$TMP/said")" ||
			fail "$* is refused without a reason that a person understands: $(cat "$TMP/said")"
		outcome "$1 over $4: $2 donor, $3 bridge" refused
		return
	}
	through "$4" "$TMP/image" || fail "$*: other bytes: $(cat "$TMP/copy")"
	for version in old new; do
		said=$(weft_of $version status "$name") || fail "weft status of $version: $said"
		[[ $said = *"$name"*ready* ]] || fail "weft status of $version, $*: $said"
		said=$(weft_of $version status --prometheus) ||
			fail "weft status --prometheus of $version: $said"
	done
	weft_of "$(other_version "$3")" detach "$name" >"$TMP/out" 2>&1 ||
		fail "detach by the other, $*: $(cat "$TMP/out")"
	at_donor "$1" "$TMP/image" || fail "$*: other bytes at the donor"
	outcome "$1 over $4: $2 donor, $3 bridge" works
}

saves() { # VERSION WHAT FROM: its rescue saves what $TMP/later has, or says why not
	if weft_of "$1" rescue "$3" "$TMP/saved" >"$TMP/out" 2>&1; then
		cmp -n $((2 << 20)) "$TMP/saved" "$TMP/later" ||
			fail "rescue by $1 saved something else"
		outcome "rescue by $1 of $2" works
	else
		is_understood "$(cat "$TMP/out")" || fail "rescue by $1: $(cat "$TMP/out")"
		outcome "rescue by $1 of $2" refused
	fi
	rm -f "$TMP"/saved{,.map}
}

# What a killed bridge's cache file holds is saved by the other version's rescue, and written back
# by the same version's next bridge.
rescue() { # BRIDGE
	local by
	by=$(other_version "$1")
	attach_of "$1" "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" --cache 16M \
		--cache-file "$TMP/cache" --push-interval 60 || fail "$(cat "$TMP/said")"
	copy "$TMP/later" "nbd+unix:///?socket=$TMP/s" || fail "$(cat "$TMP/copy")"
	saves "$by" "a cache: $1 bridge" r
	kill_bridge r
	saves "$by" "a cache file: $1 bridge" "$TMP/cache"
	if ! attach_of "$1" "weft://127.0.0.1:$PORT/r" --socket "$TMP/s" --cache 16M \
		--cache-file "$TMP/cache"; then
		is_understood "$(cat "$TMP/said")" ||
			fail "what the cache file holds is not written back: $(cat "$TMP/said")"
		outcome "a cache file written back: $donor donor, $1 bridge" refused
		weft_of "$1" detach --force r >/dev/null 2>&1 || fail "detach --force"
		rm -f "$TMP/cache"
		return
	fi
	outcome "a cache file written back: $donor donor, $1 bridge" works
	weft_of "$1" detach r || fail "detach"
	donor_has r "$TMP/later" $((2 << 20)) || fail "rescue changed what it saved"
}

is_stale() {
	[[ $(bridge_state m) = stale ]]
}

# The donor loses the contents, and the other version asks the bridge to go on with the new ones.
reset() { # DONOR BRIDGE
	local by
	by=$(other_version "$2")
	attach_of "$2" "weft://127.0.0.1:$PORT/m" --socket "$TMP/s" || fail "$(cat "$TMP/said")"
	stop_donor || fail "the donor's exit status: $?"
	donor_of "$1" "${regions[@]}"
	wait_for -t 30 is_stale
	if weft_of "$by" reset m >"$TMP/out" 2>&1; then
		through socket "$TMP/image" ||
			fail "other bytes after a reset by $by: $(cat "$TMP/copy")"
		outcome "reset by $by: $1 donor, $2 bridge" works
	else
		is_understood "$(cat "$TMP/out")" || fail "reset by $by: $(cat "$TMP/out")"
		outcome "reset by $by: $1 donor, $2 bridge" refused
	fi
	weft_of "$2" detach m >/dev/null || fail "detach"
}

# One program for both libraries: the API is the same.
use_library() { # DONOR LIBRARY
	if LD_LIBRARY_PATH=${libraries[$2]} timeout 60 "$TMP/use" "weft://127.0.0.1:$PORT/m" "$TMP/image" 2>"$TMP/said"; then
		at_donor memory "$TMP/image" || fail "other bytes by libweft, $*"
		outcome "libweft: $1 donor, $2 library" works
	else
		is_understood "$(cat "$TMP/said")" || fail "libweft, $*: $(cat "$TMP/said")"
		outcome "libweft: $1 donor, $2 library" refused
	fi
}
cat >"$TMP/use.c" <<-'C'
	#include <err.h>
	#include <stdio.h>
	#include <stdlib.h>
	#include <string.h>
	#include <weft.h>

	int main(int argc, char **argv)
	{
		size_t size = 4 << 20;
		char why[256], *image = malloc(size), *got = malloc(size);
		FILE *file = fopen(argv[2], "rb");
		struct weft *w;

		if (!file || fread(image, size, 1, file) != 1)
			err(1, "%s", argv[2]);
		if (weft_open(argv[1], 0, &w, why, sizeof(why)) < 0)
			errx(1, "%s", why);
		if (weft_pwrite(w, image, size, 0) < 0 || weft_flush(w) < 0 || weft_pread(w, got, size, 0) < 0)
			errx(1, "it does not work");
		weft_close(w);
		return memcmp(image, got, size) != 0;
	}
C
gcc -I"$WEFT_SRC/nbd-bridge/library" "$TMP/use.c" -o "$TMP/use" -L"${libraries[old]}" -lweft

for donor in old new; do
	bridge=$(other_version $donor)
	truncate -s 0 "$TMP/file" "$TMP/dir/d"
	truncate -s 4M "$TMP/file" "$TMP/dir/d"
	regions=(--listen "127.0.0.1:$(free_port)" --memory m=4M --memory r=16M --file "f=$TMP/file"
		--directory "$TMP/dir")
	donor_of $donor "${regions[@]}"
	for version in old new; do
		weft_of $version list "weft://127.0.0.1:$PORT" >"$TMP/out" 2>&1 ||
			fail "weft list of $version: $(cat "$TMP/out")"
		[[ $(grep -c '^[mfdr] .*4 MiB' "$TMP/out") = 3 ]] ||
			fail "weft list of $version: $(cat "$TMP/out")"
		weft_of $version list --json "weft://127.0.0.1:$PORT" | jq -e . >/dev/null ||
			fail "weft list --json of $version"
		weft_of $version status >"$TMP/out" || fail "weft status of $version"
		grep -q "127.0.0.1:$PORT" "$TMP/out" ||
			fail "weft status of $version has no donor: $(cat "$TMP/out")"
	done
	fronts=(socket cache)
	[[ ! -w /dev/fuse ]] || fronts+=(mount)
	for kind in memory file directory; do
		for front in "${fronts[@]}"; do
			use_front "$kind" "$donor" "$bridge" "$front"
		done
	done
	[[ -w /dev/fuse ]] || for kind in memory file directory; do tried+=("$kind over mount: $donor donor, $bridge bridge"); done
	rescue "$bridge"
	case $WEFT_PRESET in
	# the library wants the sanitizer's first
	asan | tsan) tried+=("libweft: $donor donor, $bridge library") ;;
	*) use_library "$donor" "$bridge" ;;
	esac
	reset "$donor" "$bridge"
	stop_donor || fail "the donor's exit status: $?"
	cmp "$TMP/file" "$TMP/image" || fail "other bytes in the file"
done
for prefix in "memory over" "file over" "directory over" rescue reset "a cache file" libweft; do outcomes_agree "$prefix"; done
