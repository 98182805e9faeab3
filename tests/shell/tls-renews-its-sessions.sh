# SPDX-License-Identifier: MIT
# Weft's own ends never change keys in a session of TLS 1.3, they make another session in time: here
# after 1,000 records, again and again under fio's checks, over two lanes and two donors.  No
# connection is lost, the generation stays, and a donor has no session more than before.
# timeout: 240
# presets: dev asan tsan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool fio jq
over_the_network

make_keys "$TMP/keys" alice
export WEFT_KEY=$TMP/keys-alice.psk WEFT_TLS_RECORDS=1000
start_donor --memory a=32M --listen 192.0.2.1:0 --keys "$TMP/keys"
A=$URI
start_donor --memory b=32M --listen 192.0.2.1:0 --keys "$TMP/keys"
attachment() {
	weft status both --json | jq -e ".attachments[0] | $1"
}

for cache in "" "--cache 16M"; do
	# shellcheck disable=SC2086
	weft attach "$A" "$URI" --name both --socket "$TMP/s" --lanes 2 --stripe-unit 64K $cache
	generation=$(attachment .generation)
	fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw \
		--bsrange=4k-64k --iodepth=16 --numjobs=2 --size=32M --offset_increment=32M \
		--verify=crc32c --verify_state_save=0 --verify_fatal=1 --group_reporting \
		--time_based --runtime=8 >"$TMP/fio" 2>&1 || fail "fio $cache: $(tail "$TMP/fio")"
	attachment '[.lanes[].links[].renewals] | min >= 1' >/dev/null ||
		fail "no new sessions: $(weft status both --json)"
	attachment ".errors == 0 and .reconnects == 0 and .state == \"ready\" and
		.generation == $generation" >/dev/null || fail "$(weft status both --json)"
	weft status --json |
		jq -e '[.donors[].attachments[] | .connections] == [2, 2]' >/dev/null ||
		fail "sessions are left over: $(weft status --json)"
	weft detach both
done
