# SPDX-License-Identifier: MIT
# --encrypt-key and --verify-key: sealed contents that outlive a restart of the borrower's machine,
# as far as the donor and the file that seals them are what they were; and what is refused.
# presets: dev asan
# timeout: 400
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool jq unshare nbdcopy cmp qemu-io openssl
unshare --mount true 2>/dev/null || skip "no mount namespaces here"

start_donor --memory verify=32M --memory encrypt=32M --memory m=32M
socket="nbd+unix:///?socket=$TMP/s"
cache=$TMP/cache
seal=$TMP/cache.seal
(umask 077 && openssl rand -hex 32 >"$TMP/key" && openssl rand -hex 32 >"$TMP/other")
refused() { # TEXT ARGUMENT…: a command that says so
	"${@:2}" >"$TMP/out" 2>"$TMP/err" && fail "${*:2} was taken, and not: $1"
	grep -q -- "$1" "$TMP/err" || fail "${*:2} said: $(cat "$TMP/err")"
}
cp /proc/sys/kernel/random/boot_id "$TMP/boot"
in_boot() { # COMMAND…: in the boot that the machine is said to have
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare -m bash -c 'mount --bind "$1" /proc/sys/kernel/random/boot_id && exec "${@:2}"' \
		- "$TMP/boot" "$@"
}
attach() {
	in_boot weft attach "${URI%/*}/$region" --name r --socket "$TMP/s" --cache 8M \
		--cache-file "$cache" "$@" >"$TMP/said"
}
state() { jq ".$1" "$WEFT_RUN_DIR/attach-r.json"; }
kill_it() {
	local pid
	pid=$(state pid)
	kill -KILL "$pid"
	# shellcheck disable=SC2317 # wait_for calls it
	gone() { ! kill -0 "$pid" 2>/dev/null; }
	wait_for gone
}
# As after a restart of the machine: nothing is left in the run directory, and another boot.
restart_machine() {
	kill_it
	rm -f "$WEFT_RUN_DIR"/attach-r.* "$TMP/s"
	cat /proc/sys/kernel/random/uuid >"$TMP/boot"
}
# What was flushed before a restart is there; of later writes nobody knows, and the attach says so.
tells() { # true or false: whether it says that the machine was restarted
	local told=false
	! grep -q "this machine was restarted without a detach" "$TMP/said" || told=true
	[[ $told = "$1" ]] || fail "told of a restart: $told: $(cat "$TMP/said")"
}
reads() { # BLOCK: whether it can be read
	qemu-io -r -f raw -c "read $(($1 * 4096)) 4096" "$socket" >"$TMP/io" 2>&1
}
holds() { # FILE
	nbdcopy "$socket" "$TMP/back" || fail "nbdcopy"
	cmp "$1" "$TMP/back" || fail "something else was read"
	[[ $(weft status r --json | jq .attachments[0].cache.bad_blocks) = 0 ]] || fail "bad blocks"
}

for kind in verify encrypt; do
	region=$kind
	mine=("--$kind-key" "$TMP/key")
	refused "wants --cache-file PATH" weft attach "$URI" --name r --socket "$TMP/s" "${mine[@]}"
	refused "$seal is not there" attach "${mine[@]}"
	chmod 644 "$TMP/key"
	refused "chmod 600" attach "${mine[@]}" --new-contents
	chmod 600 "$TMP/key"
	echo "not a key" >"$TMP/no-key" && chmod 600 "$TMP/no-key"
	refused "openssl rand -hex 32" attach "--$kind-key" "$TMP/no-key" --new-contents
	[[ ! -e $seal ]] || fail "a file without a key"
	mkdir -p "$TMP/small"
	# shellcheck disable=SC2016 # the inner shell expands it
	refused "cannot make $TMP/small/cache.seal of .* bytes: No space left" unshare -m bash -c '
		mount -t tmpfs -o size=300K none "$1" && "${@:2}"
		r=$?
		ls -A "$1" >"$1.left"
		exit $r' \
		- "$TMP/small" weft attach "${URI%/*}/m" --name r --socket "$TMP/s" --cache 8M \
		--cache-file "$TMP/small/cache" "${mine[@]}" --new-contents
	[[ ! -s $TMP/small.left ]] || fail "left on a full disk: $(cat "$TMP/small.left")"

	attach "${mine[@]}" --new-contents || fail "attach"
	grep -q "the contents outlive a restart of this machine, with that key and $seal" \
		"$TMP/said" || fail "$(cat "$TMP/said")"
	tells false
	[[ $(stat -c %a "$seal") = 600 ]] || fail "mode"
	! grep -q "$(cat "$TMP/key")" "$seal" "$cache" || fail "the key is in a file"
	random_file "$TMP/data" 32M
	nbdcopy --flush "$TMP/data" "$socket" || fail "nbdcopy"
	weft status r | grep -q "sealed by $seal" || fail "$(weft status r)"
	[[ $(weft status r --json | jq -r .attachments[0].cache.sealed.file) = "$seal" ]] ||
		fail "status"
	refused "$seal is of another attachment" weft attach "${URI%/*}/m" --name x \
		--socket "$TMP/s2" --cache 8M --cache-file "$cache" "${mine[@]}" --new-contents

	# A restart of the machine, with writes under way; a detach; a bridge that is killed.
	restart_machine
	refused "$TMP/none" attach "${mine[@]}" --socket "$TMP/none/s"
	attach "${mine[@]}" || fail "not attached after a restart"
	tells true
	holds "$TMP/data"
	weft detach r >/dev/null || fail "detach"
	cat /proc/sys/kernel/random/uuid >"$TMP/boot"
	attach "${mine[@]}" || fail "not attached after a detach"
	tells false
	holds "$TMP/data"
	random_file "$TMP/more" 4M
	qemu-io -f raw -c "write -s $TMP/more 8M 4M" "$socket" >/dev/null || fail "write"
	dd if="$TMP/more" of="$TMP/data" bs=4M seek=2 conv=notrunc status=none
	kill_it
	refused "was attached with --$kind-key" in_boot weft attach "${URI%/*}/$region" --name r \
		--socket "$TMP/s" --cache-file "$cache" --cache 8M "--$kind"
	attach "${mine[@]}" || fail "not taken over"
	grep -q "taken over" "$TMP/said" || fail "$(cat "$TMP/said")"
	tells false
	holds "$TMP/data"
	kill_it
	weft detach --force r >"$TMP/out" || fail "detach"
	grep -q "its contents can be attached again" "$TMP/out" || fail "$(cat "$TMP/out")"
	attach "${mine[@]}" || fail "not attached after a detach of a dead bridge"
	holds "$TMP/data"

	# Another key, kind or region: nothing is granted, and nothing changed.
	weft detach r >/dev/null || fail "detach"
	sum=$(sha256sum "$seal")
	other=$([[ $kind = verify ]] && echo encrypt || echo verify)
	refused "is not the one that $seal was begun with" attach "--$kind-key" "$TMP/other"
	refused "$seal seals contents of --$kind" attach "--$other-key" "$TMP/key"
	region=m
	refused "$seal seals the contents of ${URI%/*}/$kind" attach "${mine[@]}"
	region=$kind
	[[ $(sha256sum "$seal") = "$sum" ]] || fail "a refusal changed $seal"

	# Lost, torn: an error that names it.
	mv "$seal" "$TMP/kept"
	refused "$seal is not there" attach "${mine[@]}"
	head -c 1M /dev/urandom >"$seal"
	refused "$seal is damaged" attach "${mine[@]}"
	cp "$TMP/kept" "$seal"
	printf 'torn' | dd of="$seal" bs=1 seek=$((81920 + 1000)) conv=notrunc status=none
	refused "$seal is damaged" attach "${mine[@]}"
	truncate -s 60K "$seal"
	refused "$seal is damaged" attach "${mine[@]}"
	cp "$TMP/kept" "$seal"
	# One torn head is what a loss of power leaves.
	newer=$(od -An -tu8 -j24 -N8 "$seal") older=$(od -An -tu8 -j$((40960 + 24)) -N8 "$seal")
	printf 'torn' | dd of="$seal" bs=1 conv=notrunc status=none \
		seek=$((newer < older ? 500 : 40960 + 500))
	attach "${mine[@]}" || fail "not attached with one head"
	holds "$TMP/data"
	weft detach r >/dev/null || fail "detach"

	# An old file: the donor refuses what was superseded, and what it lets through has rows that
	# are old.  Never wrong data.
	attach "${mine[@]}" || fail "attach"
	restart_machine
	cp "$seal" "$TMP/one"
	attach "${mine[@]}" || fail "attach"
	qemu-io -f raw -c "write -P 7 20k 8k" -c flush "$socket" >/dev/null || fail "write"
	weft detach r >/dev/null || fail "detach"
	cp "$seal" "$TMP/now"
	cp "$TMP/kept" "$seal"
	refused "was taken over by another process" attach "${mine[@]}"
	cp "$TMP/one" "$seal"
	attach "${mine[@]}" || fail "not attached with the file of before"
	for block in {3..9}; do
		reads "$block" && good=true || good=false
		[[ $good = $([[ $block = [56] ]] && echo false || echo true) ]] ||
			fail "$kind: block $block can be read: $good"
	done
	weft detach r >/dev/null || fail "detach"

	# Another wrote there; empty contents are the way on.
	attach "${mine[@]}" --new-contents || fail "no new contents"
	qemu-io -f raw -c "read -P 0 20k 8k" -c "write -P 9 20k 8k" "$socket" >"$TMP/io" ||
		fail "$(cat "$TMP/io")"
	restart_machine
	attach "${mine[@]}" || fail "attach"
	weft detach r >/dev/null || fail "detach"
	weft attach "${URI%/*}/$kind" --name other --socket "$TMP/s2" >/dev/null || fail "attach"
	weft detach other >/dev/null || fail "detach"
	refused "what $seal seals is gone: to begin empty contents, add --new-contents" \
		attach "${mine[@]}"
	rm "$seal"
done
