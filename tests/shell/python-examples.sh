# SPDX-License-Identifier: MIT
# The Python programs of tests/examples: an array of numpy with a quarter of the memory that its
# data take comes to what it comes to in plain memory; a file that is pushed every second arrives.
# presets: dev only
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/python.sh"

examples=$WEFT_SRC/tests/examples
start_donor --memory r=16M --memory s=4M
base=${URI%/*}

head -c 4M /dev/zero >"$TMP/file"
python "$examples/push-every-second.py" "$TMP/file" "$base/s" 3 >"$TMP/said" ||
	fail "$(cat "$TMP/said")"
grep -q 'are now at' "$TMP/said" || fail "nothing was pushed: $(cat "$TMP/said")"
is_there() { weft pull "$base/s" "$TMP/copy" >/dev/null; }
wait_for -t 60 is_there # once the donor has heard that the pusher is gone
cmp "$TMP/file" "$TMP/copy" || fail "the copy is not the file"
! cmp -s "$TMP/file" <(head -c 4M /dev/zero) || fail "nothing was written"

python -c 'import numpy' 2>/dev/null || skip "numpy is not there for this interpreter"
# 16 MB of numbers, 4 MiB here.
said=$(python "$examples/numpy-array.py" "$base/r" 2000000 $((4 << 20)))
[[ $said = $(python "$examples/numpy-array.py" - 2000000) ]] ||
	fail "at a donor the numbers are others: $said"
