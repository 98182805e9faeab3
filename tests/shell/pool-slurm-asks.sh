# SPDX-License-Identifier: MIT
# How a job of Slurm asks for memory of a pool beside its comment: a line of its script, which
# burst_buffer/lua leases while the job is in the queue, and an option that a SPANK plugin has.
# tier: long
# timeout: 420
# serial
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
. "${BASH_SOURCE[0]%/*}/../slurm.sh"
need_slurm
need_tool gcc

start_pool
pool_donor d1 24M
mkdir "$TMP/slurm"
gcc -Wall -Wextra -Wno-unused-parameter -Werror -fPIC -shared -o "$TMP/slurm/spank-weft.so" \
	"$WEFT_SRC/fabric/slurm/spank-weft.c" || fail "the plugin does not compile"
echo "required $TMP/slurm/spank-weft.so" >"$TMP/slurm/plugstack.conf"
environment="PATH=$WEFT_BIN:\$PATH WEFT_POOL=$WEFT_POOL WEFT_RUN_DIR=$WEFT_RUN_DIR "
sed "s|^local environment = .*|local environment = \"$environment\"|
	s|^local SECONDS_BETWEEN = .*|local SECONDS_BETWEEN = 1|" \
	"$WEFT_SRC/fabric/slurm/burst_buffer.lua" >"$TMP/slurm/burst_buffer.lua"
echo "Directive=WEFT" >"$TMP/slurm/burst_buffer.conf"
start_slurm BurstBufferType=burst_buffer/lua "PlugStackConfig=$TMP/slurm/plugstack.conf"

says() { grep -q "$2" "$TMP/out/$1" 2>/dev/null; }
# Uses what it has, and ends.
uses() { # LINE…
	printf '#!/bin/bash\n'
	printf '%s\n' "$@"
	cat <<-'SCRIPT'
		set -e
		yes | head -c "$WEFT_BYTES" | dd of="$WEFT_FILE" bs=1M conv=notrunc,fsync
		yes | head -c "$WEFT_BYTES" | cmp - "$WEFT_FILE"
		echo "had $WEFT_BYTES"
		sleep 6
	SCRIPT
}

echo "an option"
a=$(uses | submit --uid=nobody --weft=4M)
wait_for -t 60 job_is "$a" COMPLETED
says "$a" "had 4194304" || slurm_says "$(<"$TMP/out/$a")"
wait_for -t 60 nothing_leaks

echo "an option that makes no sense"
a=$(uses | submit --uid=nobody --weft=4M,as=tape)
wait_for -t 60 job_is "$a" FAILED
says "$a" "asks for nothing that there is" || slurm_says "$(<"$TMP/out/$a")"
wait_for -t 60 nothing_leaks

echo "a coordinator that does not answer"
stop_pool KILL
a=$(uses | submit --uid=nobody --weft=4M)
b=$(submit --uid=nobody <<<$'#!/bin/bash\necho "has ${WEFT_FILE-nothing}"')
wait_for -t 90 job_is "$a" FAILED
says "$a" "does not answer" || slurm_says "$(<"$TMP/out/$a")"
wait_for -t 90 job_is "$b" COMPLETED
says "$b" "has nothing" || slurm_says "$(<"$TMP/out/$b")"
start_pool
wait_for -t 60 has_donor d1
wait_for -t 60 nothing_leaks

echo "a line of the script"
a=$(uses "#WEFT size=16M" | submit --uid=nobody)
wait_for -t 60 says "$a" "had 16777216"
b=$(uses "#WEFT size=12M" | submit --uid=nobody)
sleep 2
job_is "$b" PENDING || slurm_says "there is no room for it"
wait_for -t 60 job_is "$a" COMPLETED
wait_for -t 60 job_is "$b" COMPLETED
says "$b" "had 12582912" || slurm_says "$(<"$TMP/out/$b")"
wait_for -t 60 nothing_leaks
for words in size=much size=64Gx size=16M,copies=2 "size=16M copies=2x" "copies=1"; do
	! uses "#WEFT $words" | submit 2>"$TMP/err" || fail "$words is accepted"
done

echo "one that is cancelled in the queue"
weft pool alloc all --size 20M >/dev/null || fail "alloc"
a=$(uses "#WEFT size=16M" | submit --uid=nobody)
sleep 2
scancel "$a"
weft pool release all >/dev/null
wait_for -t 60 nothing_leaks
