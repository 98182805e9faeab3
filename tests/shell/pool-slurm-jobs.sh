# SPDX-License-Identifier: MIT
# Jobs of Slurm get memory of a pool, with a real slurmctld, two slurmd and munge: two jobs at a
# time share the pool, a third waits for room; whatever becomes of a job, its node, a donor or the
# coordinator, nothing leaks, no node is drained for it, and no script takes 30 s.
# tier: long
# timeout: 700
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
. "${BASH_SOURCE[0]%/*}/../slurm.sh"
need_slurm

start_pool
pool_donor d1 24M --lease 5
D1_PID=$DONOR_PID
pool_donor d2 24M --lease 5
D2_PID=$DONOR_PID
start_slurm "Licenses=weft:4"

# Writes a pattern of its own over all that it has, waits until told, and compares.
cat >"$TMP/job" <<'JOB'
#!/bin/bash
set -e
yes "$SLURM_JOB_ID" | head -c "$WEFT_BYTES" | dd of="$WEFT_FILE" bs=1M conv=notrunc,fsync
echo "wrote $WEFT_BYTES"
for ((i = 0; i < 1200; i++)); do
	[[ ! -e $GO ]] || break
	sleep 0.1
done
yes "$SLURM_JOB_ID" | head -c "$WEFT_BYTES" | cmp - "$WEFT_FILE"
echo "compared"
JOB
go=$TMP/out/go
says() { grep -q "$2" "$TMP/out/$1" 2>/dev/null; }
job() { # OPTION…: of nobody's
	submit --uid=nobody --export="ALL,GO=$go" "$@" "$TMP/job"
}

echo "a job that asks for nothing"
id=$(submit --comment "my first weftless job" <<<$'#!/bin/bash\necho "has ${WEFT_FILE-nothing}"')
wait_for -t 60 job_is "$id" COMPLETED
says "$id" "has nothing" || slurm_says "$(<"$TMP/out/$id")"

echo "two jobs at a time, and one that waits for room"
a=$(job --nodelist n1 --comment "run 7; weft=12M,copies=2")
b=$(job --nodelist n2 --licenses weft:1 --comment weft=10M)
# A job for which there was no room yet is tried again after two minutes.
wait_for -t 200 says "$a" "wrote 12582912"
wait_for -t 200 says "$b" "wrote 10485760"
[[ $(weft pool leases --json | jq -r '.leases[] | .lease + " " + .owner + " " + .job') = \
	"job-$a.n1.file nobody $a"$'\n'"job-$b.n2.file nobody $b" ]] || fail "$(weft pool leases)"
pid=$(weft status --json | jq '.attachments[0].pid')
if [[ -w /sys/fs/cgroup/cgroup.procs || -w /sys/fs/cgroup/unified/cgroup.procs ]]; then
	grep -qx "0::/weft.slice" "/proc/$pid/cgroup" || fail "$(<"/proc/$pid/cgroup")"
fi
c=$(job --comment weft=14M)
tried() { grep -q "prolog_slurmctld $c ends .* 1" "$TMP/slurm/hooks"; }
wait_for -t 60 tried
! says "$c" wrote || fail "it has what there is no room for"
touch "$go"
wait_for -t 60 job_is "$a" COMPLETED
wait_for -t 60 job_is "$b" COMPLETED
says "$a" compared && says "$b" compared || slurm_says "other bytes"
wait_for -t 200 job_is "$c" COMPLETED
says "$c" compared || slurm_says "other bytes"
wait_for -t 60 nothing_leaks

echo "a job is killed"
rm "$go"
a=$(job --nodelist n1 --comment weft=12M)
wait_for -t 60 says "$a" wrote
scancel --signal=KILL --full "$a"
wait_for -t 60 job_ended "$a"
wait_for -t 60 nothing_leaks

echo "the slurmd of its node is killed"
a=$(job --no-requeue --nodelist n1 --comment weft=12M)
wait_for -t 60 says "$a" wrote
kill -KILL "$(<"$TMP/slurm/n1.shell-pid")"
wait_for -t 90 job_is "$a" NODE_FAIL
start_node n1
wait_for -t 90 nothing_leaks

echo "its donor does not answer any more"
a=$(job --nodelist n1 --comment weft=12M)
wait_for -t 60 says "$a" wrote
at=$(weft pool leases "job-$a.n1.file" --json | jq -r '.regions[0].donor')
[[ $at = d1 ]] && donor=$D1_PID || donor=$D2_PID
kill -STOP "$donor"
scancel "$a"
wait_for -t 60 job_ended "$a"
given_back() { [[ -z $(ls -A "$TMP/jobs") ]] && nodes_are idle; }
wait_for -t 60 given_back
kill -CONT "$donor"
wait_for -t 90 nothing_leaks

echo "the coordinator is away when a job ends"
a=$(job --nodelist n1 --comment weft=12M)
wait_for -t 60 says "$a" wrote
stop_pool KILL
scancel "$a"
wait_for -t 90 job_ended "$a"
wait_for -t 60 given_back
start_pool
wait_for -t 90 nothing_leaks

echo "a request that makes no sense"
a=$(job --nodelist n1 --comment "weft=12M,copies=9")
refused() { grep -q "asks for nothing that there is" "$TMP/slurm/hook.log"; }
wait_for -t 60 refused
scancel "$a"
wait_for -t 60 nothing_leaks

echo "no script took 30 s"
awk '$3 == "begins" {at[$1 $2] = $4}
	$3 == "ends" {took = $4 - at[$1 $2]; if (took > most) most = took; nr++}
	END {
		printf "%d scripts, the longest took %.1f s\n", nr, most
		exit !(nr > 20 && most < 30)
	}' \
	"$TMP/slurm/hooks" || slurm_says "$(<"$TMP/slurm/hooks")"
weft pool audit >"$TMP/audit"
! grep -E ' (lost|unknown) ' "$TMP/audit" || fail "something was lost"
