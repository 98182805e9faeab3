# SPDX-License-Identifier: MIT
# What tests of crowds of strangers at a donor share: what a bridge and newcomers notice of them.
# Source it after lib.sh.  transport: tcp or rdma.  before_kb: what the donor has in memory first.
# shellcheck shell=bash disable=SC2154 # who uses it sets them
rss_kb() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$DONOR_PID/status"; }
reconnects() { weft status r --json | jq '.attachments[0].reconnects'; }
came_back() {
	weft status r --json | jq -e --argjson before "$1" \
		'.attachments[0] | .reconnects > $before and .state == "ready"' >/dev/null
}
stranger() { weft status --json | jq ".donors[0].strangers.$transport.$1"; }

# Attaches and detaches.
newcomer() {
	weft attach "weft://$donor/newcomer" --socket "$TMP/n" --transport "$transport" \
		>"$TMP/newcomer" 2>&1 && weft detach newcomer >>"$TMP/newcomer" 2>&1
}
newcomer_comes() { # for what is counted in `failed` and `most_kb`
	local kb
	newcomer || { ((++failed)) && cat "$TMP/newcomer"; }
	kb=$(rss_kb)
	((most_kb = kb > most_kb ? kb : most_kb))
}

# verify DEPTH SIZE THINK-TIME: in the background, for `seconds`; its process is $fio.
verify() {
	fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$TMP/s" --rw=randrw --bs=4k \
		--iodepth="$1" --size="$2" --verify=crc32c --verify_state_save=0 --verify_fatal=1 \
		--time_based --runtime="$seconds" --thinktime="$3" >"$TMP/fio" 2>&1 &
	fio=$!
}

made_room_for_more_than() { [[ $(stranger made_room) -gt $1 ]]; }
# crowd_ends PID COUNT
crowd_ends() {
	wait "$fio" || fail "fio: $(tail "$TMP/fio")"
	[[ $(stranger now) -le $(stranger max) ]] || fail "$(weft status --json)"
	wait_for -t 60 made_room_for_more_than "$2"
	kill "$1"
	wait "$1" || fail "the crowd: $(cat "$TMP/crowd")"
	weft status r --json |
		jq -e --arg transport "$transport" \
			'.attachments[0] | .errors == 0 and .transport == $transport' >/dev/null ||
			fail "$(weft status r --json)"
	# A sanitizer keeps what was freed.
	[[ $WEFT_PRESET = @(asan|tsan) ]] || ((most_kb - before_kb < 64 * 1024)) ||
		fail "the donor grew by $((most_kb - before_kb)) KiB"
}
