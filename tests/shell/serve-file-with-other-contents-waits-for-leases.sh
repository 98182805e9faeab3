# SPDX-License-Identifier: MIT
# A file that has a new epoch, as its donor was killed after a write, or as another program changed
# it while the donor was stopped, is granted to nobody else before the lease of whoever held it is
# over: until then that one may answer from what it remembers. A clean restart meanwhile changes
# nothing.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/ownership.sh"

socket="nbd+unix:///?socket=$TMP/s"
for what in "killed after a write" "changed while it was stopped"; do
	rm -f "$TMP/region"
	truncate -s 8M "$TMP/region"
	start_donor --file "r=$TMP/region" --lease 6
	weft attach "$URI" --socket "$TMP/s" --cache 8M --dead-timeout 60 >/dev/null ||
		fail "$what: attach"
	writes 0x41 0 4096 "$socket" || fail "$what: $(cat "$TMP/io")"
	if [[ $what = killed* ]]; then
		stop_donor KILL || :
	else
		stop_donor || fail "the donor's exit status: $?"
		touch "$TMP/region"
	fi
	# Where the bridge does not look for it: the network is down between them, and not
	# elsewhere.
	start_donor --file "r=$TMP/region" --lease 1
	! writes 0x42 0 4096 "nbd://127.0.0.1:$PORT/r" || fail "$what: it is granted at once"
	grep -q 'may still answer from what it remembers; it is free in' "$TMP/io" ||
		fail "$what: it does not say why: $(cat "$TMP/io")"
	! weft attach "$URI" --name other --socket "$TMP/s2" >"$TMP/out" 2>&1 ||
		fail "$what: it is granted to a borrower"
	stop_donor || fail "the donor's exit status: $?"
	start_donor --file "r=$TMP/region" --lease 1
	! writes 0x42 0 4096 "nbd://127.0.0.1:$PORT/r" ||
		fail "$what: it is granted after one more restart"
	# Once it is granted, the bridge shows nothing any more: neither what it remembers, nor
	# anything else.
	wait_for -t 30 writes 0x42 0 4096 "nbd://127.0.0.1:$PORT/r"
	! timeout 3 qemu-io -f raw -r -c 'read 0 4096' "$socket" >"$TMP/io" 2>&1 ||
		! grep -q 'read 4096' "$TMP/io" ||
		fail "$what: it answers from what it remembers: $(cat "$TMP/io")"
	weft detach --force r >/dev/null 2>&1 || :
	stop_donor || fail "the donor's exit status: $?"
done
