# SPDX-License-Identifier: MIT
# A bridge with --swap takes no memory from the kernel once it is there, and has no page fault:
# under load, with new clients, while its donor is killed, while it reconnects; over TCP and TLS,
# with sealed contents, with copies, of which one is lost and made again.  Its lanes take none from
# the heap either, but for what GnuTLS does.
# presets: dev
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
. "${BASH_SOURCE[0]%/*}/../copies.sh"
need_tool fio jq qemu-io
[[ $EUID = 0 ]] || skip "only root locks memory without a limit"
over_the_network

trap=$WEFT_BUILD/lib/libtrap-memory.so
[[ -e $trap ]] || fail "$trap was not built"
make_keys "$TMP/keys" alice
port=$(free_port)
load() {
	fio --name=l --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw --bs=4k \
		--iodepth=16 --numjobs=2 --size=16M --offset_increment=16M --io_size=2M \
		--rate=200k --verify=crc32c --verify_state_save=0 --verify_fatal=1 \
		>"$TMP/fio" 2>&1 || fail "$how: fio: $(tail "$TMP/fio") $(cat "$TMP/log")"
}
# A client that comes is no I/O: its tenure is noted in a file.  Each job is one.
begin_load() {
	local before
	before=$(asked .requests.write)
	load &
	fio=$!
	wait_for -t 30 attachment ".requests.write > $before + 50 and (.clients | length) == 2"
}
asked() { # the exit status says whether copies are current
	{ weft status r --json || :; } | jq -e ".attachments[0] | $1"
}
attachment() { asked "$1" >/dev/null; }
serve() {
	if [[ $how = tls* ]]; then
		start_donor --memory r=32M --listen "192.0.2.1:$port" --keys "$TMP/keys"
	else
		start_donor --memory r=32M --listen "127.0.0.1:$port"
	fi
}

attach() { # URI… OPTION…
	rm -f "$TMP"/trap* "$TMP/log"
	nr_shut=0
	WEFT_TRAP=$TMP/trap LD_PRELOAD=$trap weft-attach "$@" --foreground --swap --name r \
		--socket "$TMP/s" --lanes 2 >"$TMP/log" 2>&1 &
	bridge=$!
	wait_for -t 30 grep -qx ready "$TMP/log"
	: >"$TMP/trap"
	wait_for -t 30 grep -q "trap: set" "$TMP/log"
}
begin() { # HOW URI OPTION…
	how=$1
	serve
	attach "${@:2}"
}
no_faults() {
	weft status r --json | jq -c --arg how "$how" '[$how, .attachments[0].swap]'
	attachment '.swap | .faults_major == 0 and .faults_minor == 0 and .grown_bytes == 0' ||
		fail "$how: page faults: $(cat "$TMP/log")"
}

ends_well() {
	no_faults
	weft detach r >/dev/null
	wait "$bridge" || fail "$how: exit status $?: $(cat "$TMP/log")"
}
times() { [[ $(grep -c "$1" "$TMP/log") = "$2" ]]; }
load_without_heap() {
	begin_load
	: >"$TMP/trap.malloc"
	wait_for -t 30 times "the heap is shut" $((++nr_shut))
	kill -0 $fio || fail "$how: the load was over already"
	wait $fio || fail "$how: $(cat "$TMP/log")"
	rm "$TMP/trap.malloc"
	wait_for -t 30 times "the heap is open" $nr_shut
}

try() { # HOW URI OPTION…
	begin "$@"
	[[ $how = tls* ]] || load_without_heap
	begin_load
	kill -KILL "$DONOR_PID"
	wait "$DONOR_PID" || :
	serve
	wait_for -t 30 attachment '.state == "ready"'
	wait $fio || fail "$how: it did not go on"
	attachment '.reconnects >= 1 and .errors == 0' || fail "$how: $(weft status r)"
	ends_well
	stop_donor
}

try "by name" "weft://localhost:$port/r"
try sealed "weft://127.0.0.1:$port/r" --encrypt --new-contents --cache 8M
try tls "weft://192.0.2.1:$port/r" --key "$TMP/keys-alice.psk"

how=copies
export COPY_BYTES=32M COPY_LEASE=5
lend a
lend b
attach "${COPY[a]}" "${COPY[b]}" --mirror 2
load_without_heap
begin_load
forget b
wait_for -t 30 attachment '.copies.state == "degraded"'
lend b
wait_for -t 60 attachment '.copies.state == "whole"'
wait $fio || fail "$how: it did not go on"
attachment '.errors == 0' || fail "$how: $(weft status r)"
load_without_heap
ends_well

# The donor is gone for good: that has a bound, and the log says whose pages are gone.
begin lost "weft://127.0.0.1:$port/r" --dead-timeout 2
kill -KILL "$DONOR_PID"
before=$SECONDS
! qemu-io -f raw -c 'read 0 4k' "nbd+unix:///?socket=$TMP/s" >"$TMP/out" 2>&1 || fail "it was read"
((SECONDS - before < 15)) || fail "it took $((SECONDS - before)) s: $(cat "$TMP/out")"
wait_for -t 30 grep -q "'r': every page that is swapped to it is out of reach" "$TMP/log"
no_faults
kill -0 "$bridge" || fail "it ended: $(cat "$TMP/log")"
weft detach --force r >/dev/null || : "its last FLUSH has nowhere to go"
