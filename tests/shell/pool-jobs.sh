# SPDX-License-Identifier: MIT
# What a scheduler's scripts ask of weft pool, without a scheduler: whatever becomes of a job's
# wish, of the keys or of the coordinator is the job's matter, which its environment says; the node
# is never drained for it, and nobody's lease is taken for another's.
# timeout: 300
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
need_tool jq curl
[[ -w /dev/fuse ]] || skip "/dev/fuse is not there for this user"

start_pool
pool_donor d1 32M --allow-insecure
me=$(id -un)
unset SPANK_WEFT SLURMD_NODENAME
job() { # NUMBER OPTION…: its start here; it is never the node's matter
	weft pool job-start --node n1 --dir "$TMP/jobs" --allow-insecure --job "$@" \
		2>"$TMP/err" || fail "job-start $*: exit $?: $(<"$TMP/err")"
}
ends() { # NUMBER OPTION…
	weft pool job-end --node n1 --dir "$TMP/jobs" --job "$@" 2>"$TMP/err" ||
		fail "job-end $*: exit $?: $(<"$TMP/err")"
	[[ ! -e $TMP/jobs/$1 ]] || fail "$(ls -la "$TMP/jobs/$1")"
}
says() { # NUMBER VARIABLE TEXT
	local is
	is=$(bash -c '. "$1" && echo "${!2-}"' - "$TMP/jobs/$1/env" "$2") &&
		[[ $is && $is = *"$3"* ]] ||
		fail "job $1 is not told $3: $(cat "$TMP/jobs/$1/env")"
}
refused() { # TEXT ARGUMENT…
	local status=0
	weft pool "${@:2}" 2>"$TMP/err" || status=$?
	((status == 1 || status == 2)) || fail "weft pool ${*:2}: exit $status: $(<"$TMP/err")"
	[[ $(<"$TMP/err") = *"$1"* ]] || fail "weft pool ${*:2}: $(<"$TMP/err")"
}

echo "a job that asks for nothing"
job 1
[[ ! -e $TMP/jobs/1 ]] || fail "$(ls "$TMP/jobs/1")"
job 1 --want "a weftless comment"
[[ ! -e $TMP/jobs/1 ]] || fail "$(ls "$TMP/jobs/1")"
ends 1

echo "one that gets what it asks for"
job 2 --want "x; weft=4M,copies=1" --project p
says 2 WEFT_FILE "$TMP/jobs/2/memory"
says 2 WEFT_BYTES 4194304
head -c 4M /dev/urandom >"$TMP/random"
dd if="$TMP/random" of="$TMP/jobs/2/memory" bs=1M conv=notrunc,fsync 2>/dev/null
cmp "$TMP/random" "$TMP/jobs/2/memory" || fail "other bytes"
[[ $(weft pool leases job-2.n1.file --json | jq -r '.project + .owner') = "p$me" ]] ||
	fail "$(weft pool leases --json)"
job 2 --want "weft=4M" --project p # again
ends 2
wait_for lease_is_gone job-2.n1.file
ends 2

echo "wishes that make no sense"
for wish in weft=64X weft=0 weft= weft=1M,copies=9 weft=1M,as=tape weft:0 weft:1G \
	weft=1M,as=swap,copies=2; do
	job 3 --want "$wish"
	says 3 WEFT_ERROR "$wish"
	ends 3
done
SPANK_WEFT=weft=1Z job 3
says 3 WEFT_ERROR "asks for nothing that there is"
ends 3
refused "asks for nothing that there is" job-start --job 3 --want weft=1Z --nodes n1
refused "names no node" job-start --job 3 --want weft=1M --nodes ""
refused "names no node" job-start --job 3 --want weft=1M --nodes ,

echo "swap space is the site's to allow"
job 4 --want weft=1M,as=swap
says 4 WEFT_ERROR "jobs get no swap space here"
ends 4
refused "jobs get no swap space here" job-start --job 4 --want weft=1M,as=swap --nodes n1
weft pool job-start --job 4 --want weft=1M,as=swap --nodes n1 --allow-swap || fail "allowed"
job 4
says 4 WEFT_ERROR "jobs get no swap space here"
ends 4
wait_for lease_is_gone job-4.n1.swap

echo "a lease of somebody else's"
weft pool alloc job-5.n1.file --for 5 --owner somebody --size 1M >/dev/null || fail "alloc"
job 5 --owner "$me" --want weft=1M
says 5 WEFT_ERROR "is of somebody"
ends 5
weft pool alloc job-5.any.file --for 5 --owner somebody --size 1M >/dev/null
wait_for lease_is_gone job-5.n1.file
job 5 --owner "$me" --first
says 5 WEFT_ERROR "is of somebody"
ends 5
weft pool release --for 5 >/dev/null

echo "names that begin alike, and the first node's"
for node in n n1-a n10 n1.file any; do
	weft pool alloc "job-6.$node.file" --for 6 --size 1M >/dev/null || fail "alloc"
done
job 6
[[ ! -e $TMP/jobs/6 ]] || fail "it has another node's: $(cat "$TMP/jobs/6/"*)"
job 6 --first
says 6 WEFT_FILE memory
[[ $(<"$TMP/jobs/6/lease") = job-6.any.file ]] || fail "$(<"$TMP/jobs/6/lease")"
ends 6
weft pool release --for 6 >/dev/null

echo "keys and addresses that are wrong"
for wrong in "--key $TMP/none --url https://192.0.2.1" "--url ftp://head" \
	"--tls-certificates $TMP/none"; do
	# shellcheck disable=SC2086
	job 7 --want weft=1M $wrong
	says 7 WEFT_ERROR ""
	# shellcheck disable=SC2086
	ends 7 $wrong
	# shellcheck disable=SC2086
	job 7 $wrong
	says 7 WEFT_UNKNOWN ""
	job 7
	[[ ! -e $TMP/jobs/7 ]] || fail "it is still told what was wrong"
	# shellcheck disable=SC2086
	refused "weft-pool: " job-start --job 7 --want weft=1M --nodes n1 $wrong
done

echo "a coordinator that comes back meanwhile"
weft pool job-start --job 8 --want weft=2M --nodes n1 || fail "for nodes"
wait_for lease_is job-8.n1.file ready
stop_pool KILL
weft pool job-start --node n1 --dir "$TMP/jobs" --allow-insecure --job 8 2>"$TMP/err8" &
started=$!
sleep 2
start_pool
wait "$started" || fail "$(<"$TMP/err8")"
says 8 WEFT_FILE memory
ends 8

echo "one that stays away"
stop_pool KILL
job 9 --wait 1
says 9 WEFT_UNKNOWN "does not answer"
ends 9 --wait 1
job 9 --wait 1 --want weft=1M
says 9 WEFT_ERROR "does not answer"
ends 9 --wait 1

echo "the scripts of Slurm, with a scheduler that is played"
hook() { # CONTEXT JOB [VARIABLE=VALUE…]
	env PATH="$TMP/played:$PATH" WEFT_SLURM_CONF="$TMP/slurm.conf" SLURM_JOB_USER="$me" \
		SLURMD_NODENAME=n1 SLURM_SCRIPT_CONTEXT="$1" SLURM_JOB_ID="$2" "${@:3}" \
		"$WEFT_SRC/fabric/slurm/weft-slurm" >"$TMP/out" 2>"$TMP/err"
}
conf() {
	printf 'dir=%q ask=(--json) start=(--allow-insecure %s)\n' "$TMP/jobs" "$*" \
		>"$TMP/slurm.conf"
}
conf --wait 1
mkdir "$TMP/played"
cat >"$TMP/played/scontrol" <<'END'
#!/bin/bash
case "$*" in
"show hostnames "*) printf '%s\n' $HOSTS ;;
"-o show job "*) echo "JobId=$4 JobName=weft $JOB WorkDir=/" ;;
esac
END
chmod +x "$TMP/played/scontrol"
hook prolog_slurmd 10 || fail "$(<"$TMP/err")"
says 10 WEFT_UNKNOWN "does not answer"
for asked in "Comment=a=1 weft=4M" "Licenses=weft:4" "BurstBuffer=#WEFT size=1G"; do
	! hook prolog_task 10 JOB="$asked" || fail "it runs without what it asked for: $asked"
	grep -qx "print weft: .*does not answer.*" "$TMP/out" || fail "$(<"$TMP/out")"
done
hook prolog_task 10 JOB="Comment=weftless" || fail "$(<"$TMP/out")"
[[ ! -s $TMP/out ]] || fail "$(<"$TMP/out")"
hook epilog_slurmd 10 || fail "$(<"$TMP/err")"
conf
start_pool
wait_for has_donor d1
hook prolog_slurmctld 11 SLURM_JOB_COMMENT=weft=1M SLURM_JOB_ACCOUNT=physics HOSTS="n1 n2" \
	SLURM_JOB_NODELIST='n[1-2]' || fail "$(<"$TMP/err")"
# One of an earlier job may be ending still.
[[ $(weft pool leases --json |
	jq -r '.leases[] | select(.job == "11") | .lease + " " + .project') = \
	"job-11.n1.file physics"$'\n'"job-11.n2.file physics" ]] ||
	fail "$(weft pool leases --json)"
weft pool release --for 11 >/dev/null
hook prolog_slurmctld 12 SLURM_JOB_COMMENT=weft=1M SLURM_JOB_ACCOUNT="(null)" HOSTS=n1 \
	SLURM_JOB_NODELIST=n1 || fail "$(<"$TMP/err")"
weft pool release --for 12 >/dev/null
! hook prolog_slurmctld 12 SLURM_JOB_COMMENT=weft=1M HOSTS="" SLURM_JOB_NODELIST='n[1-2]' ||
	fail "a job of no nodes has all that it asked for"
grep -q "names no node" "$TMP/err" || fail "$(<"$TMP/err")"
# Which node is the first takes no scontrol.
for nodes in 'n1' 'n1,n0' 'n[1-2,5]' 'n[1],a'; do
	weft pool alloc job-13.any.file --for 13 --size 1M --owner "$me" >/dev/null || fail "alloc"
	hook prolog_slurmd 13 SLURM_NODELIST="$nodes" HOSTS="" || fail "$(<"$TMP/err")"
	says 13 WEFT_FILE memory
	hook prolog_task 13
	grep -qx "export WEFT_FILE=$TMP/jobs/13/memory" "$TMP/out" || fail "$(<"$TMP/out")"
	hook epilog_slurmd 13 || fail "$(<"$TMP/err")"
	wait_for lease_is_gone job-13.any.file
done
for nodes in 'n2,n1' 'n[01-02]' 'n[10-12]' 'm1'; do
	weft pool alloc job-14.any.file --for 14 --size 1M --owner "$me" >/dev/null || fail "alloc"
	hook prolog_slurmd 14 SLURM_NODELIST="$nodes" || fail "$(<"$TMP/err")"
	[[ ! -e $TMP/jobs/14 ]] || fail "$nodes: it has what is for the first node"
done
weft pool release --for 14 >/dev/null
