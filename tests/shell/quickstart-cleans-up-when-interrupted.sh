# SPDX-License-Identifier: MIT
# Ctrl-C in the middle of fabric/quickstart leaves no process, mount or file behind, and the exit
# status says so.
# presets: release only
# timeout: 300
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"

mkdir "$TMP/tmp"
for step in "Writing the image" "Reading it back"; do
	# A process group of its own, with SIGINT not ignored, as a terminal has it.
	TMPDIR=$TMP/tmp setsid env \
		--default-signal=INT "$WEFT_SRC/fabric/quickstart" >"$TMP/out" 2>&1 &
	pid=$!
	wait_for -t 120 grep -q "== $step" "$TMP/out"
	kill -INT -- "-$pid"
	status=0
	wait "$pid" || status=$?
	[[ $status = 130 ]] || fail "after '$step': exit status $status: $(cat "$TMP/out")"
	[[ -z $(ls -A "$TMP/tmp") ]] || fail "after '$step' files are left: $(ls -A "$TMP/tmp")"
	! grep "$TMP/tmp" /proc/self/mounts || fail "after '$step' a mount is left"
done
