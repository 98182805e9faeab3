# SPDX-License-Identifier: MIT
# What tests of Slurm share: . "${BASH_SOURCE[0]%/*}/../slurm.sh", after lib.sh and pool.sh.  A real
# slurmctld, two nodes of one slurmd each, and munge, all on this machine.
# shellcheck shell=bash

need_slurm() {
	need_tool slurmctld slurmd munged sbatch scontrol scancel sinfo jq
	((EUID == 0)) || skip "slurmd has to be root"
}

# start_slurm [LINE…]: with these lines of slurm.conf besides.  Its hook is fabric/slurm/weft-slurm.
start_slurm() {
	local node
	export SLURM_CONF=$TMP/slurm/slurm.conf
	# A job's user reaches what lies here, through the directory of tests/run-one, too.
	chmod 711 "$TMP" ${WEFT_TEST_MARK:+"$WEFT_TEST_MARK"}
	# What was asked, and what was said, for whoever looks into a failure.
	# shellcheck disable=SC2016
	cleanup_add 'tail -n 60 "$TMP/slurm/hooks" "$TMP/slurm/hook.log"'
	cleanup_add 'rmdir /sys/fs/cgroup/{,unified/}weft.slice 2>/dev/null'
	mkdir -p "$TMP/slurm/state" "$TMP/slurm/munge" "$TMP/jobs"
	mkdir -m 777 "$TMP/out"
	head -c 1024 /dev/urandom >"$TMP/slurm/munge/key"
	chmod 400 "$TMP/slurm/munge/key"
	munged --foreground --force --key-file "$TMP/slurm/munge/key" --num-threads 1 \
		--socket "$TMP/slurm/munge/socket" --pid-file "$TMP/slurm/munge/pid" \
		--log-file "$TMP/slurm/munge/log" --seed-file "$TMP/slurm/munge/seed" \
		>"$TMP/slurm/munge/said" 2>&1 &
	# The tree of the sources may be closed to a job's user.
	cp "$WEFT_SRC/fabric/slurm/weft-slurm" "$TMP/slurm/weft-slurm"
	chmod 755 "$TMP/slurm/weft-slurm"
	# Slurm gives its scripts no environment.
	cat >"$TMP/slurm/hook" <<-EOF2
		#!/bin/bash
		export PATH=$WEFT_BIN:\$PATH WEFT_POOL=$WEFT_POOL SLURM_CONF=$SLURM_CONF
		export WEFT_SLURM_CONF=$TMP/slurm/weft.conf
		if ((EUID == 0)); then
			export WEFT_RUN_DIR=$WEFT_RUN_DIR
			name="\$SLURM_SCRIPT_CONTEXT \$SLURM_JOB_ID"
			echo "\$name begins \$EPOCHREALTIME" >>$TMP/slurm/hooks
			$TMP/slurm/weft-slurm >>$TMP/slurm/hook.log 2>&1
			status=\$?
			echo "\$name ends \$EPOCHREALTIME \$status" >>$TMP/slurm/hooks
			exit \$status
		fi
		exec $TMP/slurm/weft-slurm
	EOF2
	chmod 755 "$TMP/slurm/hook"
	printf 'dir=%q\nstart=(--keep 20)\n' "$TMP/jobs" >"$TMP/slurm/weft.conf"
	cat >"$TMP/slurm/cgroup.conf" <<-'EOF2'
		CgroupPlugin=cgroup/v1
		CgroupAutomount=no
	EOF2
	cat >"$SLURM_CONF" <<-EOF2
		ClusterName=test
		SlurmctldHost=localhost(127.0.0.1)
		SlurmctldPort=$(free_port)
		SlurmUser=root
		SlurmdUser=root
		AuthType=auth/munge
		AuthInfo=socket=$TMP/slurm/munge/socket
		CredType=cred/munge
		StateSaveLocation=$TMP/slurm/state
		SlurmdSpoolDir=$TMP/slurm/spool-%n
		SlurmctldPidFile=$TMP/slurm/slurmctld.pid
		SlurmdPidFile=$TMP/slurm/slurmd-%n.pid
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		JobAcctGatherType=jobacct_gather/none
		MpiDefault=none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU
		ReturnToService=2
		SlurmdTimeout=10
		KillWait=2
		MinJobAge=300
		SchedulerParameters=defer_batch,sched_interval=2,bf_interval=2
		PrologFlags=Alloc
		PrologSlurmctld=$TMP/slurm/hook
		Prolog=$TMP/slurm/hook
		TaskProlog=$TMP/slurm/hook
		Epilog=$TMP/slurm/hook
		EpilogSlurmctld=$TMP/slurm/hook
		NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$(free_port) CPUs=2
		NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$(free_port) CPUs=2
		PartitionName=all Nodes=n1,n2 Default=YES State=UP
		$(printf '%s\n' "$@")
	EOF2
	chmod 644 "$SLURM_CONF"
	wait_for -t 30 test -S "$TMP/slurm/munge/socket"
	slurmctld -D -c >"$TMP/slurm/slurmctld.log" 2>&1 &
	for node in n1 n2; do
		start_node "$node"
	done
	wait_for -t 60 nodes_are idle
}

start_node() { # NAME: sets NODE_PID
	slurmd -D -N "$1" >>"$TMP/slurm/slurmd-$1.log" 2>&1 &
	NODE_PID=$!
	echo "$NODE_PID" >"$TMP/slurm/$1.shell-pid"
}

slurm_says() { # what goes wrong
	tail -n 25 "$TMP/slurm/"*.log >&2 || :
	fail "$*"
}

nodes_are() {
	[[ $(sinfo -h -N -o '%t' | sort -u) = "$1" ]]
}

# submit OPTION… <<<SCRIPT: prints the job's number.  The script's output is in $TMP/out/NUMBER.
submit() {
	sbatch --parsable --output "$TMP/out/%j" --chdir / "$@"
}

job_is() { # NUMBER STATE
	[[ $(scontrol -o show job "$1" | grep -o 'JobState=[A-Z_]*') = "JobState=$2" ]]
}

job_ended() { # NUMBER
	local state
	state=$(scontrol -o show job "$1" | grep -o 'JobState=[A-Z_]*')
	[[ $state != *@(PENDING|CONFIGURING|RUNNING|COMPLETING) ]]
}

# Nothing is left of any job, and no node was drained.
nothing_leaks() {
	[[ $(weft pool leases --json | jq '.leases | length') = 0 ]] &&
		[[ $(weft pool status --json | jq .used_bytes) = 0 ]] &&
		[[ -z $(ls -A "$TMP/jobs") ]] && ! grep -q " $TMP/jobs/" /proc/self/mounts &&
		[[ $(weft status --json | jq '.attachments | length') = 0 ]] && nodes_are idle
}
