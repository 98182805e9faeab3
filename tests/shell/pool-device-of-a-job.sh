# SPDX-License-Identifier: MIT
# tier: long
# timeout: 760
# A job's block device is its user's as long as the job lasts: afterwards it is root's again,
# whether its bridge ended or was killed, so that whoever has the node next is not read by that
# user.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool jq

in_testbed --timeout 700 <<'END'
. tests/pool.sh
user=nobody
uid=$(id -u "$user")
start_pool
pool_donor d1 64M --allow-insecure
owner() { stat -c %u "$1"; }
start() { # JOB
	weft pool job-start --node n1 --dir "$TMP/jobs" --allow-insecure --job "$1" \
		--owner "$user" --want weft=4M,as=device || fail "job-start"
	. "$TMP/jobs/$1/env"
	[[ ! ${WEFT_ERROR-} ]] || fail "$WEFT_ERROR"
}
ends() { # JOB
	weft pool job-end --node n1 --dir "$TMP/jobs" --job "$1" || fail "job-end"
	[[ ! -e $TMP/jobs/$1 ]] || fail "$(ls "$TMP/jobs/$1")"
}

echo "== it ends"
start 1
[[ $WEFT_BYTES = 4194304 && -b $WEFT_DEVICE ]] || fail "$(cat "$TMP/jobs/1/env")"
[[ $(owner "$WEFT_DEVICE") = "$uid" ]] || fail "owner: $(owner "$WEFT_DEVICE")"
setpriv --reuid "$uid" --clear-groups dd if=/dev/urandom of="$WEFT_DEVICE" bs=4k count=1 \
	oflag=direct || fail "its user cannot write to it"
ends 1
[[ ! -e $WEFT_DEVICE || $(owner "$WEFT_DEVICE") = 0 ]] || fail "owner: $(owner "$WEFT_DEVICE")"

for kind in nbd ublk; do
	echo "== $kind: given away, and detached"
	start_donor --allow-insecure --memory r=16M
	weft attach "$URI" --device --device-kind "$kind" --allow-insecure >"$TMP/out" ||
		fail "$(cat "$TMP/out")"
	dev=$(sed -n 's|.*device \(/dev/[a-z0-9]*\).*|\1|p' "$TMP/out")
	chown "$user" "$dev"
	weft detach r || fail "detach"
	[[ ! -e $dev || $(owner "$dev") = 0 ]] || fail "owner: $(owner "$dev")"

	echo "== $kind: killed, and cleared away"
	weft attach "$URI" --device --device-kind "$kind" --allow-insecure >"$TMP/out" ||
		fail "$(cat "$TMP/out")"
	dev=$(sed -n 's|.*device \(/dev/[a-z0-9]*\).*|\1|p' "$TMP/out")
	chown "$user" "$dev"
	pid=$(weft status --json | jq '.attachments[0].pid')
	kill -KILL "$pid"
	wait_for -t 60 gone "$pid"
	wait_for -t 60 weft detach r --force
	[[ ! -e $dev || $(owner "$dev") = 0 ]] || fail "owner: $(owner "$dev")"
	stop_donor || fail "the donor's exit status: $?"
done

echo "== nbd: left to a user by somebody else"
start_donor --allow-insecure --memory r=16M
chown "$user" /dev/nbd0
weft attach "$URI" --device /dev/nbd0 --allow-insecure >"$TMP/out" || fail "$(cat "$TMP/out")"
[[ $(owner /dev/nbd0) = 0 ]] || fail "owner: $(owner /dev/nbd0)"
weft detach r || fail "detach"
END
