# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# processors: 2
# Over RDMA and with block devices: programs of the commit in tests/compat/wire-0 and today's, both
# ways; a donor, and a bridge with a device, are killed and go on as the other version, and then as
# the first again.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/compat/lib.sh"
need_testbed
need_tool jq nbdcopy cmp git
build_old

in_testbed --timeout 800 <<'END'
. tests/compat/lib.sh
build_old
port=$(free_port)
socket="nbd+unix:///?socket=$TMP/s"
truncate -s 8M "$TMP/file"
regions=(--listen "$RDMA_IP:$port" --allow-insecure --lease 10 --memory memory=8M
	--file "file=$TMP/file")

# Bytes into what was attached, flushed, and back.
works() { # PATH: a device, or nothing
	random_file "$TMP/image" 8M
	if [[ ${1:-} ]]; then
		timeout 60 dd if="$TMP/image" of="$1" bs=1M oflag=direct conv=fsync status=none
	else
		copy --flush "$TMP/image" "$socket" || fail "$(cat "$TMP/copy")"
	fi
	same "${1:-}"
}
same() { # PATH
	if [[ ${1:-} ]]; then
		timeout 60 dd if="$1" of="$TMP/got" bs=1M iflag=direct status=none
	else
		copy "$socket" "$TMP/got" || fail "$(cat "$TMP/copy")"
	fi
	cmp "$TMP/image" "$TMP/got" || fail "other bytes"
}
try() { # VERSION ARGUMENT…: whether it is attached; if not, with a reason
	local end=$((SECONDS + 60))
	attach_of "$@" && return
	# Another donor lost what a borrower held: nobody else gets it for a lease.
	while grep -q "it is free in" "$TMP/said" && ((SECONDS < end)); do
		sleep 0.5
		attach_of "$@" && return
	done
	is_understood "$(cat "$TMP/said")" || fail "weft attach of $*: $(cat "$TMP/said")"
	return 1
}

for donor in old new; do
	bridge=$(other_version $donor)
	donor_of $donor "${regions[@]}"
	for region in memory file; do
		if try "$bridge" "weft://$RDMA_IP:$port/$region" --socket "$TMP/s" --transport rdma --lanes 2; then
			works
			for version in old new; do
				weft_of $version status "$region" |
					grep -q "over rdma\\|of another version" ||
						fail "$version: $(weft_of $version status "$region")"
			done
			weft_of $donor detach "$region"
			outcome "RDMA: $region, $donor donor, $bridge bridge" works
		else
			outcome "RDMA: $region, $donor donor, $bridge bridge" refused
		fi
	done
	stop_donor || fail "the donor's exit status: $?"
done

ready() { [[ $(bridge_state memory) = ready ]]; }
for first in old new; do
	second=$(other_version $first)
	for bridge in old new; do
		outcome=''
		donor_of $first "${regions[@]}"
		if try $bridge "weft://$RDMA_IP:$port/memory" --socket "$TMP/s" --transport rdma --lanes 2; then
			works
			for version in "$second" $first; do
				stop_donor KILL || :
				donor_of "$version" "${regions[@]}"
				wait_for -t 60 ready
				same
				works
				outcome+="${outcome:+, }works"
			done
			weft_of $bridge detach memory
		fi
		outcome "RDMA, donor killed, $first then $second then $first: $bridge bridge" \
			"${outcome:-refused}"
		stop_donor || fail "the donor's exit status: $?"
	done
done

no_bridge() { ! pgrep -x weft-attach >/dev/null; }
for donor in old new; do
	donor_of $donor "${regions[@]}"
	for first in old new; do
		second=$(other_version $first)
		for kind in ublk nbd; do
			what="$kind device, bridge killed, $first then $second then $first: $donor donor" outcome=''
			options=("weft://$RDMA_IP:$port/memory" --device --device-kind $kind
				--lanes 2 --timeout 90 --dead-timeout 90)
			attach_of $first "${options[@]}" || fail "$what: $(cat "$TMP/said")"
			device=$(weft status memory --json | jq -r '.attachments[0].device')
			works "$device"
			for version in "$second" $first; do
				kill -KILL "$(pgrep -x weft-attach)"
				wait_for no_bridge
				timeout 120 dd if="$device" of="$TMP/got" bs=1M iflag=direct \
					status=none &
				reader=$!
				try "$version" "${options[@]}" || {
					outcome+="${outcome:+, }refused"
					attach_of "$(other_version "$version")" "${options[@]}" ||
						fail "$what: after a refusal: $(cat "$TMP/said")"
				}
				wait $reader || fail "$what: who was reading has an error"
				cmp "$TMP/image" "$TMP/got" || fail "$what: other bytes"
				[[ $outcome != *refused ]] || break
				works "$device"
				outcome+="${outcome:+, }works"
			done
			weft_of new detach memory || fail "$what: detach"
			outcome "$what" "$outcome"
		done
	done
	stop_donor || fail "the donor's exit status: $?"
done
outcomes_agree RDMA
outcomes_agree "ublk device"
outcomes_agree "nbd device"
END
