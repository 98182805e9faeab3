# SPDX-License-Identifier: MIT
# What README.md shows of weft move is what it says.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

start_donor --memory scratch=8M --memory other=4M
A=127.0.0.1:$PORT
start_donor --memory mine=1M --take 64M
B=127.0.0.1:$PORT
weft attach "weft://$A/scratch" --socket "$TMP/s" --name scratch || fail "attach"
python3 "$WEFT_SRC/tests/support/session.py" "$WEFT_SRC/README.md" "Moving a region" \
	"a=$A" "b=$B" || fail "README.md shows something else"
weft detach scratch
