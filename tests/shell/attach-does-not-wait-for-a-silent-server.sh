# SPDX-License-Identifier: MIT
# weft attach gives up on a server that begins the handshake and then falls silent.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool perl

perl -MIO::Socket::INET -e '
	my $listen = IO::Socket::INET->new(Listen => 8, LocalAddr => "127.0.0.1") or die;
	open(my $out, ">", "$ENV{TMP}/port.new") or die;
	print $out $listen->sockport;
	close $out;
	rename "$ENV{TMP}/port.new", "$ENV{TMP}/port";
	my @kept;
	while (my $client = $listen->accept) {
		syswrite $client, pack("A8 A8 n", "NBDMAGIC", "IHAVEOPT", 3);
		# The flags and STRUCTURED_REPLY, which is granted; then no more.
		read $client, my $asked, 4 + 16;
		syswrite $client, pack("Q> N N N", 0x3e889045565a9, 8, 1, 0);
		push @kept, $client;
	}' &
wait_for test -s "$TMP/port"
status=0
timeout 40 weft attach "weft://127.0.0.1:$(cat "$TMP/port")/r" --socket "$TMP/s" >"$TMP/out" 2>&1 ||
	status=$?
((status == 1)) || fail "status $status: $(cat "$TMP/out")"
grep -q 'no answer within' "$TMP/out" || fail "$(cat "$TMP/out")"

echo "what it waits for is told, and Ctrl-C gives up"
weft attach "weft://127.0.0.1:$(cat "$TMP/port")/r" --socket "$TMP/s" >"$TMP/told" 2>&1 &
attach=$!
wait_for -t 5 grep \
	-q \
	"weft-attach: waiting for an answer of weft://127.0.0.1:.*/r, up to 10 s (Ctrl-C gives up)" "$TMP/told"
kill -TERM "$attach"
wait "$attach" || :
nothing_left() {
	! pgrep -f "^weft-attach.*$TMP/s" >/dev/null &&
		[[ -z $(compgen -G "$WEFT_RUN_DIR/attach-r*") && ! -e $TMP/s ]]
}
wait_for -t 3 nothing_left

echo "a signal ends what waits in the foreground, at once"
weft attach "weft://127.0.0.1:$(cat "$TMP/port")/r" --socket "$TMP/s" \
	--foreground >"$TMP/ended" 2>&1 &
attach=$!
wait_for -t 5 grep -q "waiting for an answer of" "$TMP/ended"
kill -TERM "$attach"
wait_for -t 3 gone "$attach"
status=0
wait "$attach" || status=$?
[[ $status = 1 && $(cat "$TMP/ended") = *"given up"* ]] ||
	fail "exit status $status: $(cat "$TMP/ended")"
nothing_left || fail "left behind"
