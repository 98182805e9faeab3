# SPDX-License-Identifier: MIT
# What ctest and tests/run run is judged: an exit status, the time, what a sanitizer says, processes
# that are left over, skips.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

# A tree with these tests alone, and a build of it.
tree=$TMP/tree
mkdir -p "$tree/tests/shell" "$TMP/build"
ln -s "$WEFT_SRC/tests/run-one" "$tree/tests/"
cat >"$TMP/build/CTestTestfile.cmake" <<END
set(WEFT_SOURCE "$tree")
set(WEFT_BUILD "$TMP/build")
set(WEFT_PRESET dev)
include("$WEFT_SRC/tests/table.cmake")
weft_shell_tests()
END
made() { # NAME, of what standard input has
	cat >"$tree/tests/shell/$1.sh"
}
made is-fine <<'END'
echo "$WEFT_PRESET $WEFT_TIER $WEFT_BUILD $WEFT_BIN" >&2
[[ -d $TMPDIR && ! -e $WEFT_RUN_DIR ]]
END
made is-wrong <<<'exit 3'
made is-skipped <<'END'
echo "SKIP: it has no legs"
exit 77
END
made is-slow <<'END'
# timeout: 1
sleep 100
END
made leaves-a-process <<'END'
setsid sleep 1000 &
until [[ $(<"/proc/$!/comm") = sleep ]]; do sleep 0.01; done
echo "$!" >"$LEFT"
END
made is-complained-of <<'END'
echo "it leaks" >"${ASAN_OPTIONS##*log_path=}.1"
END
made is-skipped-test-by-test <<'END'
echo "[  PASSED  ] 0 test(s)."
echo "[  SKIPPED ] 2 test(s), listed below:"
END
made is-skipped-in-part <<'END'
echo "[  PASSED  ] 1 test(s)."
echo "[  SKIPPED ] 2 test(s), listed below:"
END
made is-long <<'END'
# tier: long
END
made is-for-asan <<'END'
# presets: asan
END
made is-for-asan-only <<'END'
# presets: asan only
END

export LEFT=$TMP/left
run_ctest() { # OPTION…: "NAME STATUS" for each test in $TMP/got
	ctest --test-dir "$TMP/build" -j4 "$@" >"$TMP/out" 2>&1 || :
	sed -nE 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) \.+[ *]*(Passed|Failed|Skipped|Timeout).*/\1 \2/p' "$TMP/out" | sort >"$TMP/got"
}
run_ctest
sort >"$TMP/wanted" <<'END'
shell/is-complained-of Failed
shell/is-fine Passed
shell/is-skipped Skipped
shell/is-skipped-in-part Passed
shell/is-skipped-test-by-test Skipped
shell/is-slow Failed
shell/is-wrong Failed
shell/leaves-a-process Failed
END
diff "$TMP/wanted" "$TMP/got" || fail "judged otherwise: $(cat "$TMP/out")"
wait_for gone "$(cat "$LEFT")"
log=$TMP/build/Testing/Temporary/LastTest.log
for said in "dev first $TMP/build $TMP/build/bin" "SKIP: it has no legs" "timed out after 1 s" \
	"it leaks" \
	"left a process behind: $(cat "$LEFT") sleep 1000"; do
	grep -qF "$said" "$log" || fail "ctest does not tell '$said': $(cat "$log")"
done

# The second tier adds its own, and what another preset has in the first.
run_ctest -C long -R 'long|asan|fine'
printf 'shell/%s Passed\n' is-fine is-for-asan is-long | diff - "$TMP/got" ||
	fail "$(cat "$TMP/out")"
grep -qF "dev long $TMP/build" "$log" || fail "the test is not told its tier"

# What a head says must be so.
while read -r key value said; do
	made is-odd <<<"# $key: $value"
	! ctest --test-dir "$TMP/build" -N >"$TMP/out" 2>&1 || fail "'# $key: $value' is taken"
	tr -s '\n ' ' ' <"$TMP/out" | grep -qF "is-odd.sh: $said" ||
		fail "not what is wrong: $(cat "$TMP/out")"
done <<'END'
tier late there is no tier late
presets deb there is no preset deb
END

# Told to end, it leaves no file and no process.
made is-odd <<'END'
echo "$$" >"$LEFT"
sleep 1000
END
mkdir "$TMP/temporary"
rm "$LEFT"
TMPDIR=$TMP/temporary "$WEFT_SRC/tests/run-one" "$TMP/build" dev first 60 bash \
	"$tree/tests/shell/is-odd.sh" >"$TMP/out" 2>&1 &
judge=$!
wait_for test -s "$LEFT"
start=$SECONDS
kill "$judge"
! wait "$judge" || fail "it ended as if the test had passed"
((SECONDS - start < 30)) || fail "it ended only when the test's time was up"
gone "$(cat "$LEFT")" || fail "the test runs on"
rest=$(find "$TMP/temporary" -mindepth 1)
[[ ! $rest ]] || fail "it left $rest"
