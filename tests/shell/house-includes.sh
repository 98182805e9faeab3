# The folders are the architecture: who may include whom.
#   fabric/ (libraries)  only fabric/
#   transports/X         fabric/ and transports/X; all of <infiniband/…> and <rdma/…> is in transports/verbs
#   nbd-bridge/          fabric/ and nbd-bridge/
#   programs' main files, tests and perf: anything
. "${BASH_SOURCE[0]%/*}/../lib.sh"

cd "$WEFT_SRC"
bad=0
check() { # FILE ALLOWED-PREFIX…: of each #include "…"
	local file=$1 header prefix
	shift
	while read -r header; do
		for prefix; do [[ $header != "$prefix"* ]] || continue 2; done
		echo "$file may not include \"$header\""
		bad=1
	done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$file")
}
nr=0
while read -r file; do
	nr=$((nr + 1))
	case $file in
	*/main/*) ;;
	fabric/*) check "$file" fabric/ ;;
	transports/*/*) check "$file" fabric/ "${file%/*}/" ;;
	nbd-bridge/*) check "$file" fabric/ nbd-bridge/ ;;
	esac
	# But for what the kernel tells over netlink, which needs no library of theirs.
	if [[ $file != transports/verbs/* ]] && grep -E '#[[:space:]]*include[[:space:]]*<(infiniband|rdma)/' "$file" | grep -v '<rdma/rdma_netlink\.h>'; then
		echo "$file: RDMA's headers belong to transports/verbs alone"
		bad=1
	fi
done < <(find fabric transports nbd-bridge -name '*.[ch]')
((nr > 10)) || fail "found only $nr files"
exit $bad
