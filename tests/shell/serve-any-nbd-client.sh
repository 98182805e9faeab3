# SPDX-License-Identifier: MIT
# Stock NBD clients use a donor's regions, memory and file, over TCP and a Unix socket, on several
# connections.
# presets: dev asan tsan
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdinfo nbdcopy qemu-img qemu-io fio

check_client() { # URI SIZE-IN-MIB
	local nbd=$1 image=$TMP/image-$2 back=$TMP/back flag
	[[ $(nbdinfo --size "$nbd") = $(($2 << 20)) ]] || fail "$nbd: size"
	for flag in multi-conn flush fua zero trim df cache; do
		nbdinfo --can "$flag" "$nbd" || fail "$nbd: cannot $flag"
	done
	nbdinfo --map "$nbd" >"$TMP/map" || fail "$nbd: no map"
	random_file "$image" "$2"M
	nbdcopy --flush --connections=4 "$image" "$nbd"
	nbdcopy --connections=4 "$nbd" "$back"
	cmp "$image" "$back" || fail "$nbd: nbdcopy"
	nbdcopy --synchronous "$nbd" - | cmp - "$image" || fail "$nbd: nbdcopy --synchronous"
	qemu-img compare -q -f raw -F raw "$image" "$nbd" || fail "$nbd: qemu-img compare"
	random_file "$image" "$2"M
	qemu-img convert -n -f raw -O raw -W -m 8 "$image" "$nbd"
	qemu-img compare -q -f raw -F raw "$image" "$nbd" || fail "$nbd: qemu-img convert"
	qemu-io -f raw "$nbd" -c 'write -P 0x5a 1000003 4099' -c 'write -z 1000100 100' \
		-c 'read -P 0x5a 1000003 97' \
		-c 'read -P 0 1000100 100' -c 'write -z -u 1M 1M' -c 'read -P 0 1M 1M' -c flush \
		-c 'discard 2M 1M' \
		-c 'write -f -P 1 3M 2M' -c 'read -P 1 3M 2M' >"$TMP/qemu-io" 2>&1 ||
			fail "$nbd: qemu-io"
	! grep -i 'fail\|error' "$TMP/qemu-io" || fail "$nbd: qemu-io"
	fio --name=v --ioengine=nbd --uri="$nbd" --rw=randrw --bsrange=512-256k --blockalign=512 \
		--iodepth=16 \
		--numjobs=4 --size=$(($2 / 4))M --offset_increment=$(($2 / 4))M --verify=crc32c \
		--verify_state_save=0 \
		--group_reporting >"$TMP/fio" 2>&1 || fail "$nbd: fio: $(tail "$TMP/fio")"
}

truncate -s 32M "$TMP/backing"
start_donor --memory m=64M --file f="$TMP/backing" --listen 127.0.0.1:0 --listen "unix:$TMP/donor"
told=$(sed -n 's/^any NBD client: //p' "$DONOR_LOG")
[[ $told = "nbd://127.0.0.1:$PORT/NAME" ]] || fail "it says '$told' to NBD clients"
check_client "${told/NAME/m}" 64
check_client "nbd+unix:///m?socket=$TMP/donor" 64
check_client "nbd+unix:///f?socket=$TMP/donor" 32
check_client "nbd://127.0.0.1:$PORT/f" 32
nbdcopy "nbd://127.0.0.1:$PORT/f" "$TMP/back"
cmp "$TMP/backing" "$TMP/back" || fail "the file is not what was written"
[[ $(nbdinfo --list "nbd://127.0.0.1:$PORT" | grep -c '^export=') = 2 ]] || fail "list"
stop_donor || fail "exit status $?"
