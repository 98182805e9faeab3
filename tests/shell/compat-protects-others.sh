# SPDX-License-Identifier: MIT
# Bridges of both versions whose lease ran out while another wrote are refused by donors of both, by
# today's at a donor of the commit in tests/compat/wire-0 as well as by that one's own, also after
# the donor went on as the other version: nothing of the other's is overwritten. What they had not
# written back can be saved.
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$WEFT_SRC/tests/compat/lib.sh"
need_tool jq nbdcopy cmp git
build_old

# Attachments, each with a MiB in its cache that was never written back: VERSION:live is stopped for
# longer than the lease, VERSION:next is killed then, and one of the version `next` asks with its
# cache file.
users=()
for version in old new; do
	users+=("$version-live" "$version-old" "$version-new")
done

is_refused() { # NAME BY: what it says is in $TMP/said
	! attach_of "$2" "weft://127.0.0.1:$port/$1" --socket "$TMP/$1.s" --cache 16M \
		--cache-file "$TMP/$1.cache" && return
	weft_of "$2" detach --force "$1" >/dev/null || :
	return 1
}

writes() { # NAME: another, once the lease is over
	copy --flush "$TMP/other" "nbd://127.0.0.1:$port/$1"
}

is_stale() { # NAME
	[[ $(bridge_state "$1") = stale ]]
}

# What was told that it is stale stays so when the other version takes it over, whoever knows it,
# bridge or donor.
stale_stays() { # NAME CASE
	local by
	by=$(other_version "${1%-*}")
	kill_bridge "$1"
	if attach_of "$by" "weft://127.0.0.1:$port/$1" --socket "$TMP/$1.s" --cache 16M \
		--cache-file "$TMP/$1.cache"; then
		is_stale "$1" || fail "$2: $by takes over what is stale, and goes on"
		! copy "nbd+unix:///?socket=$TMP/$1.s" "$TMP/got" ||
			fail "$2: $by takes over what is stale, and shows it"
	else
		is_understood "$(cat "$TMP/said")" ||
			fail "$2: $by is refused without a reason that a person understands: $(cat "$TMP/said")"
	fi
	donor_has "$1" "$TMP/other" $((16 << 20)) ||
		fail "$2: what another wrote and flushed is gone"
	outcome "$2, then $by takes over what is stale" refused
}

lapse() { # DONOR NEXT
	local regions=() user by what
	declare -A pid=()
	port=$(free_port)
	for user in "${users[@]}"; do regions+=(--memory "$user=16M"); done
	donor_of "$1" --listen "127.0.0.1:$port" --lease 2 "${regions[@]}"
	for user in "${users[@]}"; do
		random_file "$TMP/$user.dirty" 1M
		attach_of "${user%-*}" "weft://127.0.0.1:$port/$user" --socket "$TMP/$user.s" \
			--cache 16M --cache-file "$TMP/$user.cache" \
			--push-interval 60 --dead-timeout 60 || fail "$user: $(cat "$TMP/said")"
		copy "$TMP/$user.dirty" "nbd+unix:///?socket=$TMP/$user.s" ||
			fail "$user: $(cat "$TMP/copy")"
		pid[$user]=$(bridge_pid "$user")
	done
	for user in "${users[@]}"; do
		case $user in
		*-live) kill -STOP "${pid[$user]}" ;;
		*) kill -KILL "${pid[$user]}" ;;
		esac
	done
	for user in "${users[@]}"; do
		wait_for -t 30 writes "$user"
	done
	if [[ $1 != "$2" ]]; then
		stop_donor KILL || :
		donor_of "$2" --listen "127.0.0.1:$port" --lease 2 "${regions[@]}"
	fi
	for user in "${users[@]}"; do
		what="lapsed, another wrote: $1 donor"
		[[ $1 = "$2" ]] || what+=" then $2"
		what+=", ${user%-*} bridge, "
		case $user in
		*-live)
			kill -CONT "${pid[$user]}"
			wait_for -t 30 is_stale "$user"
			for by in old new; do
				is_understood "$(weft_of $by status "$user")" ||
					fail "$by's status says of $user: $(weft_of $by status "$user")"
			done
			! copy "nbd+unix:///?socket=$TMP/$user.s" "$TMP/got" ||
				fail "$user shows what it remembers"
			what+=live
			;;
		*)
			by=${user#*-}
			is_refused "$user" "$by" || fail "$user was granted"
			is_understood "$(cat "$TMP/said")" ||
				fail "$user is refused without a reason that a person understands: $(cat "$TMP/said")"
			what+="then $by with its cache file"
			;;
		esac
		donor_has "$user" "$TMP/other" $((16 << 20)) ||
			fail "$what: what another wrote and flushed is gone"
		rm -f "$TMP"/saved{,.map}
		weft_of "${user%-*}" rescue "$TMP/$user.cache" "$TMP/saved" >"$TMP/out" 2>&1 ||
			weft_of "${user%-*}" rescue "$user" "$TMP/saved" >"$TMP/out" 2>&1 ||
				fail "$what: not saved: $(cat "$TMP/out")"
		cmp -n $((1 << 20)) "$TMP/saved" "$TMP/$user.dirty" ||
			fail "$what: something else was saved"
		outcome "$what" refused
		[[ $user != *-live || $2 = old ]] || stale_stays "$user" "$what"
	done
	for user in "${users[@]}"; do
		weft_of "${user%-*}" detach --force "$user" >/dev/null 2>&1 || :
	done
	rm -f "$TMP"/*.cache
	stop_donor || fail "the donor's exit status: $?"
	wait_for bash -c "! ls $WEFT_RUN_DIR/hold-*.sock"
}

random_file "$TMP/other" 16M
lapse old old
lapse new new
lapse old new
lapse new old
outcomes_agree lapsed
