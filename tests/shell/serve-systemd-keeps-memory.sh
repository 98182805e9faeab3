# SPDX-License-Identifier: MIT
# tier: long
# timeout: 240
# processors: 2
# Under systemd itself: the unit that is installed keeps memory over a crash and a restart; what
# others would lose is known beforehand, and status says so.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed
need_tool qemu-io jq
[[ -x /usr/lib/systemd/systemd ]] || skip "systemd is not installed"

cmake --install "$WEFT_BUILD" --prefix "$TMP/prefix" >/dev/null
cat >"$TMP/inside" <<'END'
set -euo pipefail
prefix=$1 PATH=$2:$PATH
# The user's manager of a machine that looks as if it had been booted by systemd.
export XDG_RUNTIME_DIR=/run/user-0 WEFT_RUN_DIR=/run/user-0/weft
mkdir -p -m 700 "$XDG_RUNTIME_DIR/systemd/user" /run/systemd/system /etc/weft
mkdir /sys/fs/cgroup/test
echo $$ >/sys/fs/cgroup/test/cgroup.procs
SYSTEMD_LOG_TARGET=console /usr/lib/systemd/systemd --user >/run/systemd.log 2>&1 &
trap '[[ $? = 0 ]] || cat /run/systemd.log /run/*.log' EXIT
for ((i = 0; i < 300; i++)); do
	[[ ! -S $XDG_RUNTIME_DIR/systemd/private ]] || break
	sleep 0.1
done

unit() { # NAME LINE…
	cat >"$XDG_RUNTIME_DIR/systemd/user/$1.service" <<-EOF
		[Service]
		Type=notify
		ExecStart=$prefix/libexec/weft/weft-serve --memory r=4M --listen 127.0.0.1:20000
		Environment=WEFT_RUN_DIR=$WEFT_RUN_DIR
		StandardError=file:/run/$1.log
		RestartSec=100ms
	EOF
	printf '%s\n' "${@:2}" >>"$XDG_RUNTIME_DIR/systemd/user/$1.service"
}
region() { # KEY
	weft status --json | jq -r ".donors[0].regions[0].$1"
}
# check UNIT KEPT_BY: what status says, and that it is so.
check() {
	local epoch pid
	systemctl --user start "$1"
	[[ $(region kept_by) = "$2" ]] ||
		{ echo "$1: kept by $(region kept_by), not $2"; cat "/run/$1.log"; exit 1; }
	epoch=$(region epoch)
	qemu-io -f raw -c 'write -P 0x42 0 4M' nbd://127.0.0.1:20000/r >/dev/null
	pid=$(systemctl --user show -P MainPID "$1")
	kill -KILL "$pid"
	for ((i = 0; i < 300; i++)); do
		[[ ! -e /proc/$pid ]] || { sleep 0.1 && continue; }
		systemctl --user start "$1" && break # those that do not restart by themselves
		sleep 0.1
	done
	if [[ $2 = nobody ]]; then
		[[ $(region epoch) != "$epoch" ]] ||
			{ echo "$1: memory that nobody keeps is there"; exit 1; }
	else
		[[ $(region epoch) = "$epoch" ]] || { echo "$1: $2 did not keep it"; exit 1; }
		qemu-io -f raw -c 'read -P 0x42 0 4M' nbd://127.0.0.1:20000/r |
			grep 'read 4194304/4194304' >/dev/null
	fi
	systemctl --user stop "$1"
	for ((i = 0; i < 100; i++)); do
		[[ $(weft status --json | jq '.held | length') != 0 ]] || break
		sleep 0.1
	done
}

# The one that is installed, with its options; but there are no mount namespaces over the guest's
# root.
cp "$prefix/lib/systemd/system/weft-serve.service" "$XDG_RUNTIME_DIR/systemd/user/"
mkdir "$XDG_RUNTIME_DIR/systemd/user/weft-serve.service.d"
printf '%s\n' '[Service]' ProtectSystem=no ProtectKernelTunables=no ProtectKernelModules=no \
	ProtectKernelLogs=no ProtectControlGroups=no ProtectHostname=no ProtectClock=no \
	StandardError=file:/run/weft-serve.log \
	>"$XDG_RUNTIME_DIR/systemd/user/weft-serve.service.d/guest.conf"
echo 'WEFT_SERVE_OPTIONS="--memory r=4M --listen 127.0.0.1:20000"' >/etc/weft/serve.conf
check weft-serve systemd
systemctl --user start weft-serve
epoch=$(region epoch)
systemctl --user restart weft-serve
[[ $(region epoch) = "$epoch" ]] || { echo "a restart loses memory"; exit 1; }
systemctl --user stop weft-serve
systemctl --user start weft-serve
[[ $(region epoch) != "$epoch" ]] || { echo "a stop keeps memory"; exit 1; }
systemctl --user stop weft-serve
# What the unit forbids is nothing that RDMA needs.
echo "WEFT_SERVE_OPTIONS=\"--memory r=4M --listen $RDMA_IP:20000 --allow-insecure\"" \
	>/etc/weft/serve.conf
systemctl --user start weft-serve
weft attach "weft://$RDMA_IP:20000/r" --transport rdma --socket /run/r.sock
qemu-io -f raw -c 'write -P 0x42 0 4M' -c 'read -P 0x42 0 4M' 'nbd+unix:///?socket=/run/r.sock' |
	grep 'read 4194304/4194304' >/dev/null
weft detach r
systemctl --user stop weft-serve

# None that is not there, that is too small, or that goes with the unit.
unit none Restart=on-failure
check none nobody
grep -q 'a crash of this program loses its memory: .*FileDescriptorStoreMax=1024 and Restart=on-failure' \
	/run/none.log
unit small Restart=on-failure FileDescriptorStoreMax=1
check small nobody
grep -q "descriptor store is full" /run/small.log
unit once FileDescriptorStoreMax=8
check once nobody
# A unit that lets the holder live.
unit process Restart=on-failure KillMode=process
check process holder
echo good
END
"$WEFT_SRC/tests/testbed/run" --timeout 200 \
	-- bash "$TMP/inside" "$TMP/prefix" "$WEFT_BIN" >"$TMP/output" 2>&1 ||
	fail "exit status $?: $(tail -n 40 "$TMP/output")"
[[ $(tail -n 1 "$TMP/output") = good ]] || fail "$(tail -n 40 "$TMP/output")"
