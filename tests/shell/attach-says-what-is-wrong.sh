# SPDX-License-Identifier: MIT
# Each mistake in attaching gets an answer that names it, and nothing is left behind.
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"

start_donor --memory r=1M --memory ro=1M --memory ü=4K
refused() { # STATUS TEXT ARGUMENT…
	local want=$1 text=$2 status=0 answer
	shift 2
	answer=$(weft attach "$@" 2>&1) || status=$?
	[[ $status = "$want" && $answer = *"$text"* ]] ||
		fail "weft attach $*: exit $status: $answer"
}
base=weft://127.0.0.1:$PORT
refused 2 'which region?' --socket "$TMP/s"
refused 2 '--socket PATH, --mount FILE, or several of them' "$URI"
refused 2 "--lanes wants" "$URI" --socket "$TMP/s" --lanes 0
refused 2 "--lanes wants" "$URI" --socket "$TMP/s" --lanes 4294967297
refused 2 "--dead-timeout wants seconds" "$URI" --socket "$TMP/s" --dead-timeout x
refused 2 "--stripe-unit wants a power of two" "$URI" "$base/other" --socket "$TMP/s" \
	--stripe-unit 5000
refused 2 "--stripe-unit is for several URIs" "$URI" --socket "$TMP/s" --stripe-unit 64K
refused 2 "is there twice" "$URI" "$URI" --socket "$TMP/s"
refused 2 "are not striped together" "$URI" nbd://127.0.0.1/x --socket "$TMP/s"
refused 2 "--name wants" "$URI" --socket "$TMP/s" --name a/b
refused 2 "--name wants" "$URI" --socket "$TMP/s" --name .
kernel=(--kernel-socket --device)
refused 2 "for --device of the nbd driver" "$URI" --kernel-socket --socket "$TMP/s"
refused 2 "for --device of the nbd driver" "$URI" --kernel-socket --device /dev/ublkb0
refused 2 "goes with --device alone" "$URI" "${kernel[@]}" --socket "$TMP/s"
refused 2 "knows neither stripes nor copies" "$URI" "$base/other" "${kernel[@]}"
refused 2 "another server gives a session no alias" nbd://127.0.0.1/x "${kernel[@]}"
refused 2 "a Unix socket leads to this machine" "weft+unix:///r?socket=$TMP/d" "${kernel[@]}"
refused 2 "goes without --cache" "$URI" "${kernel[@]}" --cache 64M
refused 2 "goes without --encrypt" "$URI" "${kernel[@]}" --encrypt
refused 2 "RDMA needs no socket" "$URI" "${kernel[@]}" --transport rdma
refused 2 "the kernel's driver keeps no keys" "$URI" "${kernel[@]}" --key "$TMP/key"
two=("$URI" "$base/ro" --socket "$TMP/s" --mirror 2)
refused 2 "--mirror wants 2 to 16" "$URI" "$base/ro" --socket "$TMP/s" --mirror 1
refused 2 "are for --mirror" "$URI" --socket "$TMP/s" --min-copies 1
refused 2 "--mirror 3 wants 3 URIs, or a multiple of that, and not 2" "${two[@]}" --mirror 3
refused 2 "there are no more than 2 copies" "${two[@]}" --min-copies 3
refused 2 "--on-too-few wants wait or error" "${two[@]}" --on-too-few x
refused 2 "--from wants one of the URIs" "${two[@]}" --from "$base/other"
refused 2 "not all are copies of each other" "${two[@]}" --stripe-unit 64K
refused 2 "neither --read-only nor --shared" "${two[@]}" --shared
refused 2 "--from URI" "${two[@]}" --new-contents
refused 2 "without --encrypt" "${two[@]}" --encrypt
refused 2 "without --cache-file" "${two[@]}" --cache 8M --cache-file "$TMP/c"
refused 2 "another server does not note" nbd://127.0.0.1/x nbd://127.0.0.1/y --mirror 2 \
	--socket "$TMP/s"
refused 2 "weft://" http://127.0.0.1/r --socket "$TMP/s"
refused 2 "No such file" "$URI" --socket "$TMP/none/s"
refused 2 "name a region" "$base" --socket "$TMP/s"
refused 1 "127.0.0.1 port $PORT: there is no region 'nope'; to see its regions: weft list $base" \
	"$base/nope" --socket "$TMP/s"
! grep -q 'cannot connect' <<<"$(weft attach "$base/nope" --socket "$TMP/s" 2>&1)" ||
	fail "it did connect"
refused 1 "Connection refused; is weft serve running there?" "weft://127.0.0.1:$(free_port)/r" \
	--socket "$TMP/s"
refused 1 "RDMA" "$URI" --socket "$TMP/s" --transport rdma
: >"$TMP/taken"
refused 1 "is no socket" "$URI" --socket "$TMP/taken"
mkdir "$TMP/dir"
[[ ! -w /dev/fuse ]] || refused 1 "is a directory" "$URI" --mount "$TMP/dir"
weft attach "$base/%C3%BC" --socket "$TMP/s" | grep "weft detach region" || fail "no name to type"
weft detach region
weft attach "$URI" --socket "$TMP/s"
refused 1 "there is an attachment 'r' already" "$URI" --socket "$TMP/s2"
refused 1 "held by" "$URI" --name other --socket "$TMP/s2"
refused 1 "another process does" "$base/ro" --socket "$TMP/s"
weft attach "$URI" --name reader --shared --socket "$TMP/s2" >"$TMP/out" ||
	fail "a shared reader was refused"
grep -q read-only "$TMP/out" || fail "$(cat "$TMP/out")"
nbdinfo --is read-only "nbd+unix:///?socket=$TMP/s2" || fail "it may write"
weft detach reader
weft detach "$TMP/s"

# Of a device: what is missing, before anything else is said.
if [[ ! -e /dev/ublk-control && ! -e /sys/module/nbd && $EUID = 0 ]]; then
	[[ $(weft attach "$URI" --device 2>&1) = \
		"weft-attach: the kernel has no driver for a block device loaded; as root: modprobe ublk_drv"*"or: modprobe nbd"* ]] ||
		fail "$(weft attach "$URI" --device 2>&1)"
	refused 1 "weft-attach: the kernel's nbd driver is not loaded; as root: modprobe nbd" \
		"$URI" --device /dev/nbd3
fi
if [[ $EUID = 0 ]]; then
	place=$(mktemp -d /tmp/weft-place.XXXXXX)
	cleanup_add "rm -rf $place"
	cp "$WEFT_BIN/weft-attach" "$place"
	mkdir -m 700 "$place/run"
	chown -R 1234 "$place"
	answer=$(WEFT_RUN_DIR=$place/run setpriv --reuid 1234 --regid 1234 --clear-groups "$place/weft-attach" "$URI" --device 2>&1) || :
	[[ $answer = \
		"weft-attach: a block device ("*") is for root; --mount and --socket are for everybody" ]] || fail "$answer"
fi

# Of what is not there.
not_there() { # TEXT COMMAND…
	local answer
	answer=$("${@:2}" 2>&1) && fail "${*:2} succeeded"
	[[ $answer = *"$1"* ]] || fail "${*:2}: $answer"
}
not_there "weft-reset: there is no attachment 'nobody'; weft status shows all attachments" weft \
	reset nobody
not_there "weft-detach: there is no attachment 'nobody'; weft status shows all attachments" weft \
	detach nobody
not_there "weft-rescue: there is no attachment 'nobody', and no such file" weft rescue nobody \
	"$TMP/saved"
not_there "is weft serve running there?" weft list "weft://127.0.0.1:$(free_port)"
left=$(compgen -G "$WEFT_RUN_DIR/attach*") || :
[[ -z $left ]] || fail "left behind: $left"
