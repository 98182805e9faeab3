# SPDX-License-Identifier: MIT
# A bridge is killed, and the other version takes its attachment over, and then the first again:
# state files, cache files, sockets and FUSE files. (The other version: the commit in
# tests/compat/wire-0.)
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/compat/lib.sh"
need_tool jq nbdcopy cmp git
build_old

write_image() { # FRONT: other bytes, flushed; of a cache the last quarter is not
	random_file "$TMP/image" 16M
	if [[ $1 = mount ]]; then
		timeout 60 dd if="$TMP/image" of="$TMP/mnt" bs=1M conv=notrunc,fsync status=none ||
			fail "$case: cannot be written"
		return
	fi
	copy --flush "$TMP/image" "nbd+unix:///?socket=$TMP/s" ||
		fail "$case: cannot be written: $(cat "$TMP/copy")"
	if [[ $1 = cache ]]; then
		random_file "$TMP/part" 1M
		copy "$TMP/part" "nbd+unix:///?socket=$TMP/s" ||
			fail "$case: cannot be written: $(cat "$TMP/copy")"
		dd if="$TMP/part" of="$TMP/image" conv=notrunc status=none
	fi
}

has_image() { # FRONT
	if [[ $1 = mount ]]; then
		timeout 60 dd if="$TMP/mnt" of="$TMP/got" bs=1M iflag=direct status=none
	else
		copy "nbd+unix:///?socket=$TMP/s" "$TMP/got"
	fi && cmp "$TMP/got" "$TMP/image"
}

chain() { # KIND FRONT FIRST DONOR
	local kind=$1 front=$2 first=$3 name=$1 options=(--socket "$TMP/s") outcome='' version
	case="bridge killed, $first then $(other_version "$first") then $first: $kind, $front, $4 donor"
	case $front in
	mount) options=(--mount "$TMP/mnt") ;;
	cache) options+=(--cache 16M --cache-file "$TMP/cache" --push-interval 60) ;;
	esac
	attach_of "$first" "weft://127.0.0.1:$PORT/$name" "${options[@]}" ||
		fail "$case: $(cat "$TMP/said")"
	for version in $(other_version "$first") $first; do
		write_image "$front"
		kill_bridge "$name"
		if attach_of "$version" "weft://127.0.0.1:$PORT/$name" "${options[@]}"; then
			has_image "$front" ||
				fail "$case: $version has other bytes: $(cat "$TMP/copy")"
			outcome+="${outcome:+, }works"
			continue
		fi
		is_understood "$(cat "$TMP/said")" ||
			fail "$case: $version is refused without a reason that a person understands: $(cat "$TMP/said")"
		outcome+="${outcome:+, }refused"
		# The other one goes on as if nothing had been, with every write that was answered.
		version=$(other_version "$version")
		attach_of "$version" "weft://127.0.0.1:$PORT/$name" "${options[@]}" ||
			fail "$case: after a refusal $version cannot go on either: $(cat "$TMP/said")"
		has_image "$front" || fail "$case: after a refusal $version has other bytes"
		break
	done
	outcome "$case" "$outcome"
	weft_of "$version" detach "$name" >"$TMP/out" 2>&1 ||
		fail "$case: detach: $(cat "$TMP/out")"
	donor_has "$name" "$TMP/image" || fail "$case: other bytes at the donor"
}

fronts=(socket cache)
[[ ! -w /dev/fuse ]] || fronts+=(mount)
for donor in old new; do
	truncate -s 16M "$TMP/file"
	donor_of $donor --memory memory=16M --file "file=$TMP/file"
	for kind in memory file; do
		for first in old new; do
			for front in "${fronts[@]}"; do chain "$kind" "$front" "$first" "$donor"; done
			[[ -w /dev/fuse ]] ||
				tried+=("bridge killed, $first then $(other_version $first) then $first: $kind, mount, $donor donor")
		done
	done
	stop_donor || fail "the donor's exit status: $?"
done
outcomes_agree "bridge killed"
