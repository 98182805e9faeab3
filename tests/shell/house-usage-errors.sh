# SPDX-License-Identifier: MIT
# A mistake in any command's line: exit status 2, and the same form of message everywhere.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

wrong() { # COMMAND TEXT ARGUMENT…
	local command=$1 text=$2 status=0
	shift 2
	weft "$command" "$@" >"$TMP/out" 2>"$TMP/err" || status=$?
	[[ $status = 2 && ! -s $TMP/out ]] || fail "weft $command $*: exit status $status"
	[[ $(<"$TMP/err") = "weft-$command: $text"*$'\n'"Try: weft $command --help" ]] ||
		fail "weft $command $*: $(<"$TMP/err")"
}
for command in serve list attach detach status bench line doctor key push pull move swap pool; do
	wrong "$command" "unrecognized option '--nonsense'" --nonsense
done
wrong serve "'extra' is no option" extra
wrong serve "--rdma wants auto or off, not 'on'" --memory r=16M --rdma on
wrong list "one URI at a time" weft://a weft://b
wrong key "what to do is new, list, revoke, rotate or token"
wrong key "'make': what to do is new, list, revoke, rotate or token" make node7
wrong key "new whose key?" new
wrong key "token whose key?" token
wrong key "--key and --store are two places" token node7 --key k --store s
wrong key "one name at a time" new node7 node8
wrong key "'node~2' is no name" new node~2
wrong key "list shows all keys: 'node7' is one too many" list node7
wrong key "--read-only belongs to new, not to rotate" rotate node7 --read-only
wrong key "--json belongs to list, not to new" new node7 --json
wrong key "--finish makes no key" rotate node7 --finish --out k
wrong key "--from wants an address or a range, such as 192.0.2.0/24, not 'node7'" new node7 \
	--from node7
wrong key "--expires wants a time from now or a date" new node7 --expires soon
wrong key "--key belongs to token, not to new" new node7 --key k
wrong key "--expires 2001-01-01 is over already" new node7 --expires 2001-01-01
wrong push "what to push, and where to"
wrong push "where to? Give the URI" file
wrong push "'disk' is no URI of a region" file disk
wrong push "weft://a/r is there twice" file weft://a/r weft://a/r
wrong push "--stripe-unit is for several URIs" file weft://a/r --stripe-unit 1M
wrong push "--stripe-unit wants a power of two from 64K to 1G" file weft://a/r weft://b/r \
	--stripe-unit 96K
wrong push "--stripe-unit wants a power of two from 64K to 1G, not '32K'" file weft://a/r \
	weft://b/r --stripe-unit 32K
wrong push "--new-contents is for several URIs" file weft://a/r --new-contents
wrong push "'j' is one too many: --json takes no value" file weft://a/r --json j
wrong push "--watch wants a file" - weft://a/r --watch
wrong push "--interval belongs to --watch" file weft://a/r --interval 2
wrong pull "what to pull, and where to"
wrong pull "where to? Name a file" weft://a/r
wrong pull "'old' is no URI of a region" weft://a/r old new
wrong pull "--json and - both want standard output" weft://a/r - --json
wrong move "what to move, and where to"
wrong move "where to? Give the URI of the donor" weft://a/r
wrong move "which region of 'weft://a'?" weft://a weft://b
wrong move "'nbd://a/r': a region moves between donors" nbd://a/r weft://b
wrong move "'weft+unix:///?socket=/s': a region moves between donors" weft://a/r \
	"weft+unix:///?socket=/s"
wrong move "'weft://b/r' is at the donor that takes it already" weft://b/r weft://b:10809/s
wrong move "several regions cannot have one name: leave 's' out" weft://a/r weft://a/q weft://b/s
wrong move "'weft://b?transport=tcp': transport= says how" weft://a/r "weft://b?transport=tcp"
wrong move "--downtime wants a time" weft://a/r weft://b --downtime 50
wrong move "--bandwidth wants bytes a second" weft://a/r weft://b --bandwidth 1K
wrong pool "what to do is status, donors, leases, alloc"
wrong pool "'rent': what to do is status" rent
wrong pool "alloc which lease? Give its name" alloc
wrong pool "alloc how much? Say --size, such as --size 64G" alloc a
wrong pool "drain which donor?" drain
wrong pool "release which lease? Give its name, or --for JOB" release
wrong pool "release which lease? Give its name, or --for JOB" release a --for 7
wrong pool "status takes no name: 'a' is one too many" status a
wrong pool "one name at a time" release a b
wrong pool "--size wants a size, such as 64G, not 'much'" alloc a --size much
wrong pool "--mirror wants 1 to 3, not '4'" alloc a --size 1G --mirror 4
wrong pool "--spread wants donor or rack, not 'row'" alloc a --size 1G --spread row
wrong pool "--force belongs to release, not to alloc" alloc a --size 1G --force
wrong pool "--url is for those who ask, not for serve" serve --url unix:/x
wrong pool "--listen belongs to serve, not to status" status --listen 127.0.0.1
wrong pool "quota: --size SIZE, or --none" quota alice
wrong serve "how much is lent to the pool?" --pool unix:/x
wrong serve "to which pool?" --memory r=1M --lend 1G
wrong serve "--lend wants a size, such as 64G, or 'idle', not 'all'" --pool unix:/x --lend all
wrong serve "--reclaim-deadline belongs to --lend idle" --pool unix:/x --lend 1G \
	--reclaim-deadline 5
wrong attach "'pool:a' stands alone" pool:a weft://a/r --socket /s
wrong attach "'pool:' names no lease of a pool" pool: --socket /s
wrong swap "what to do is on, off or status"
wrong swap "'maybe': what to do is on, off or status" maybe
wrong swap "on: swap to which region?" on
wrong swap "on: 'donor' is no URI of a region" on donor
wrong swap "off: which one?" off
wrong swap "off: --all, or names" off --all swap
wrong swap "--all belongs to off, not to on" on weft://a/r --all
wrong swap "--json belongs to status, not to off" off swap --json
wrong swap "--size belongs to on, not to status" status --size 1G
wrong swap "--transport belongs to on, not to off" off swap --transport auto
wrong swap "--priority wants 0 to 32767, not '32768'" on weft://a/r --priority 32768
wrong swap "--name wants 1 to 60 of" on weft://a/r --name=-x
wrong swap "--exclusive wants a group: --cgroup or --slice" on weft://a/r --exclusive
wrong swap "--cgroup and --slice name the same thing" on weft://a/r --cgroup x --slice y
wrong swap "--stripe wants several URIs" on weft://a/r --stripe
wrong swap "--device /dev/nbd0 is one device" on weft://a/r weft://b/r --device /dev/nbd0
wrong attach "name a region" weft://a weft://b
wrong bench "one URI at a time" weft://a/r weft://b/r
wrong detach "one at a time" a b
wrong status "one name at a time" a b
wrong doctor "'extra' is not an option" extra
wrong list "one URI at a time: 'extra' is one too many: --json takes no value" weft://a --json extra
wrong status "one name at a time: 'extra' is one too many: --json takes no value" r --json extra
wrong reset "one attachment at a time: 'extra' is one too many: --discard takes no value" r \
	--discard extra
wrong detach "one at a time: 'extra' is one too many: --force takes no value" r --force extra
wrong bench "one URI at a time: 'r.json' is not a URI: did you mean --json=r.json?" weft://a/r \
	--json r.json
wrong bench "one URI at a time: 'r.json' is not a URI: did you mean --json=r.json?" \
	--json r.json weft://a/r
wrong bench "'r.csv' is not a URI: did you mean --csv=r.csv?" --cs r.csv
wrong bench "--from shows an earlier run: 'b.json' is not a URI: did you mean --json=b.json?" \
	--from a.json --json b.json
wrong bench "--compare wants the JSON files of two runs: 'c' is not a run: did you mean --json=c?" \
	--compare a b --json c
wrong attach "'nbd3' is not a URI: did you mean --device=nbd3?" weft://a/r --device nbd3
wrong rescue "one attachment and one file: 'c' is one too many" a b c
wrong list "one URI at a time: 'weft://b' is one too many" weft://a weft://b
wrong line "--delay wants a time" --delay 10
wrong line "--jitter can be at most --delay" --delay 1ms --jitter 2ms
wrong line "--loss wants a share" --loss 101%
wrong line "--rate wants bits a second" --rate 1
wrong line "--mtu wants bytes" --mtu 100
wrong line "--seed wants a number" --seed -1
