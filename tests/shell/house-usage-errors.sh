# A mistake in any command's line: exit status 2, and the same form of message everywhere.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

wrong() { # COMMAND TEXT ARGUMENT…
	local command=$1 text=$2 status=0
	shift 2
	weft "$command" "$@" >"$TMP/out" 2>"$TMP/err" || status=$?
	[[ $status = 2 && ! -s $TMP/out ]] || fail "weft $command $*: exit status $status"
	[[ $(<"$TMP/err") = "weft-$command: $text"*$'\n'"Try: weft $command --help" ]] || fail "weft $command $*: $(<"$TMP/err")"
}
for command in serve list attach detach status bench doctor; do
	wrong "$command" "unrecognized option '--nonsense'" --nonsense
done
wrong serve "'extra' is no option" extra
wrong list "one URI at a time" weft://a weft://b
wrong attach "name a region" weft://a weft://b
wrong bench "one URI at a time" weft://a/r weft://b/r
wrong detach "one at a time" a b
wrong status "one name at a time" a b
wrong doctor "'extra' is not an option" extra
