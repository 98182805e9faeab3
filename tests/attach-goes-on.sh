# SPDX-License-Identifier: MIT
# What an attachment over TCP has, it has where keys are proved: lanes, a cache, stripes over two
# donors, and a donor that is killed with -9 under fio and comes back, with no wrong byte and no
# error.  When its key is taken away it is over at once.  Source it after lib.sh and tls.sh, with
# TRANSPORT PATTERN [OPTION…]: what status calls it; of weft serve, where PORT is the donor's port.
# shellcheck shell=bash

TRANSPORT=$1 SHOWN=$2
shift 2
SERVE=("$@")

make_keys "$TMP/keys" alice
export WEFT_KEY=$TMP/keys-alice.psk
port=$(free_port)
serve() { # REGION PORT
	start_donor --memory "$1=32M" --listen "192.0.2.1:$2" --keys "$TMP/keys" \
		"${SERVE[@]/PORT/"$2"}"
}
serve a "$(free_port)"
A=$URI
serve b "$port"
attachment() {
	weft status both --json | jq -e ".attachments[0] | $1" >/dev/null
}

verify() { # OPTION…
	fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw \
		--bsrange=4k-256k --iodepth=16 --numjobs=2 --size=32M --offset_increment=32M \
		--verify=crc32c --verify_state_save=0 --verify_fatal=1 --group_reporting "$@" \
		>"$TMP/fio" 2>&1
}
for cache in "" "--cache 16M"; do
	# shellcheck disable=SC2086
	weft attach "$A" "$URI" --transport "$TRANSPORT" --name both --socket "$TMP/s" --lanes 2 \
		--stripe-unit 64K $cache
	weft status both | grep -q "transport $SHOWN" || fail "$(weft status both)"
	verify --io_size=300M &
	fio=$!
	wait_for attachment '.requests.write > 200'
	kill -KILL "$DONOR_PID"
	wait "$DONOR_PID" || :
	serve b "$port"
	wait $fio || fail "fio $cache: $(tail "$TMP/fio")"
	wait_for attachment '.errors == 0 and .reconnects >= 1 and .state == "ready"'
	weft detach both
done

# Without its key nobody goes on, not even who is there.
weft attach "$A" "$URI" --transport "$TRANSPORT" --name both --socket "$TMP/s" \
	--stripe-unit 64K --dead-timeout 5
: >"$TMP/keys/keys.psk"
timeout 60 nbdinfo --size "nbd+unix:///?socket=$TMP/s" >/dev/null || fail "the socket is gone"
wait_for attachment '.state != "ready"'
! verify --io_size=1M --timeout=30 || fail "it goes on without its key"
weft status both --json | jq -r '.attachments[0].why'
weft detach --force both || : "the last FLUSH has nowhere to go"
