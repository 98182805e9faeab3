# SPDX-License-Identifier: MIT
# weft-swap@.service is ordered after the network and before what may need memory, so that it is
# stopped after that and before the network; and systemd finds no circle in a boot with it.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool systemd-analyze

cmake --install "$WEFT_BUILD" --prefix "$TMP/prefix" >/dev/null
unit=$TMP/prefix/lib/systemd/system/weft-swap@.service
program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
[[ $program = "$TMP/prefix/"* && -x $program ]] || fail "ExecStart=$program"
[[ $(sed -n 's/^ExecStop=\([^ ]*\).*/\1/p' "$unit") = "$program" ]] ||
	fail "$(grep ExecStop "$unit")"
conf=$(sed -n 's/.*(an example: \(.*\)).*/\1/p' "$unit")
[[ -s $conf ]] || fail "no example of a configuration"
# The example and the unit are command lines that weft swap takes.
while read -r options; do
	# shellcheck disable=SC2086
	! "$program" on --name x $options --dry-run --dead-timeout 0 >"$TMP/out" 2>&1 ||
		fail "$options"
	grep -q 'not safe: --dead-timeout 0\|there is no group' "$TMP/out" ||
		fail "$(cat "$TMP/out")"
done < <(sed -n 's/^\(# \)\?WEFT_SWAP_OPTIONS="\(.*\)"/\2/p' "$conf")
! "$program" off --wait 60 --force x >"$TMP/out" 2>&1 || fail "there is an x"
grep -q "there is no swap 'x'" "$TMP/out" || fail "$(cat "$TMP/out")"

# has UNIT-FILE KEY UNIT…: the key names them all.
has() {
	local file=$1 key=$2 one
	shift 2
	for one; do
		sed -n "s/^$key=//p" "$file" | grep -wF -- "$one" >/dev/null ||
			fail "no $key=$one in ${file##*/}"
	done
}
has "$unit" DefaultDependencies no
has "$unit" After network-online.target
has "$unit" Wants network-online.target remote-fs-pre.target
has "$unit" Before remote-fs-pre.target remote-fs.target systemd-user-sessions.service \
	slurmd.service shutdown.target umount.target
has "$unit" Conflicts shutdown.target umount.target
! grep -qE '^(Before|WantedBy)=.*\bswap\.target' "$unit" ||
	fail "it would have to be there before the network"

# boots UNIT-FILE: what systemd says of a boot with the unit in it, and a network that comes late.
boots() {
	rm -rf "$TMP/units"
	mkdir -p "$TMP/units/multi-user.target.wants" "$TMP/units/network-online.target.wants"
	cp "$1" "$TMP/units/weft-swap@.service"
	ln -s ../weft-swap@.service "$TMP/units/multi-user.target.wants/weft-swap@x.service"
	cat >"$TMP/units/late-network.service" <<-'INNER'
		[Unit]
		Before=network-online.target
		[Service]
		Type=oneshot
		ExecStart=/bin/true
	INNER
	ln -s ../late-network.service "$TMP/units/network-online.target.wants/late-network.service"
	SYSTEMD_UNIT_PATH="$TMP/units:" systemd-analyze verify --man=no multi-user.target \
		"$TMP/units/weft-swap@x.service" 2>&1 | grep -E 'weft-swap|cycle' || :
}
said=$(boots "$unit")
[[ ! $said ]] || fail "$said"
# That it would tell: a unit like the kernel's own swap units.
sed '0,/^Before=/s//Before=swap.target /' "$unit" >"$TMP/early"
boots "$TMP/early" | grep -q 'ordering cycle' || fail "a circle is not found"

# What the manual shows, and where it says to put what.
for text in "weft-swap@" "/etc/weft/swap-"; do
	grep -qF "$text" "$WEFT_SRC/fabric/man/weft-swap.1" ||
		fail "weft-swap(1) does not name $text"
done
