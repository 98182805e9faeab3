# SPDX-License-Identifier: MIT
# Who may ask a coordinator: over HTTPS a token or a certificate says who it is, over loopback and a
# Unix socket the kernel does; each sees and ends what is theirs, and a donor reports for itself.
# timeout: 120
# presets: dev asan
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../tls.sh"
need_tool jq curl openssl python3 mount
over_the_network "$@"
. "${BASH_SOURCE[0]%/*}/../pool.sh"

make_certificates "$TMP/certs" carol
port=$(free_port)
keys=$TMP/pool-keys
new() { weft key new "$1" --store "$keys" --out "$TMP/$1.key" "${@:2}" >/dev/null; }
new alice
new boss --admin
new n1 --pool-donor
new elsewhere --from 203.0.113.0/24
new reader --read-only
new one --region r
new small --max-memory 1M
near=$(free_port)
start_pool --listen "192.0.2.1:$port" --listen "127.0.0.1:$near" --tls-certificates "$TMP/certs"
grep -qx "listening on https://192.0.2.1:$port" "$POOL_LOG" || fail "$(<"$POOL_LOG")"
url=https://192.0.2.1:$port
ca=(--cacert "$TMP/certs/ca-cert.pem")
token() { weft key token --key "$TMP/$1.key" "${@:2}"; }
get() { # STATUS TEXT [OPTION…]
	curl -sS "${ca[@]}" -w '\n%{http_code}' "${@:3}" >"$TMP/out" || fail "curl ${*:3}"
	[[ $(tail -n 1 "$TMP/out") = "$1" && $(<"$TMP/out") = *"$2"* ]] || {
		echo "${*:3}: $(<"$TMP/out")" >&2
		return 1
	}
}
as() { get "$1" "$2" -H "Authorization: Bearer $3" "${@:4}"; }

echo "a donor joins"
weft serve --listen 192.0.2.1:0 --allow-insecure --pool "$url" --pool-name n1 \
	--pool-key "$TMP/n1.key" --lend 64M --tls-certificates "$TMP/certs" >"$TMP/donor.log" 2>&1 &
wait_for has_donor n1

echo "tokens"
get 401 "it is not known who asks" "$url/v1/status"
as 200 '"pool"' "$(token alice)" "$url/v1/status"
as 401 "no token" "x" "$url/v1/status"
false=$(token alice)
as 401 "of no key" "${false/alice/boss}" "$url/v1/status"
get 401 "Bearer TOKEN" -u a:b "$url/v1/status"
as 401 "may not be used from" "$(token elsewhere)" "$url/v1/status"
as 401 "may not be used from" "$(token elsewhere)" --unix-socket "$TMP/pool.sock" \
	http://pool/v1/status
soon=$(token alice --expires 1s)
wait_for as 401 "has expired" "$soon" "$url/v1/status"
[[ $(weft key token alice --store "$keys" --expires 2099-01-01) = \
	"$(token alice --expires 2099-01-01)" ]] || fail "the store and the file differ"
as 403 "right admin" "$(token alice)" "$url/v1/audit"
as 200 '"audit"' "$(token boss)" "$url/v1/audit"
as 403 "needs its key" "$(token alice)" "$url/v1/donors/n2" -X POST -d '{}'
as 403 "needs its key" "$(token n1)" "$url/v1/donors/n2" -X POST -d '{}'

echo "each has what is theirs"
alice=(--url "$url" --key "$TMP/alice.key" --tls-certificates "$TMP/certs")
boss=(--url "$url" --key "$TMP/boss.key" --tls-certificates "$TMP/certs")
weft pool alloc hers --size 1M "${alice[@]}" >/dev/null || fail "alloc"
weft pool alloc other --size 1M "${boss[@]}" >/dev/null || fail "alloc"
[[ $(weft pool leases "${alice[@]}" --json | jq -r '.leases[].lease') = hers ]] || fail "leases"
[[ $(weft pool leases "${boss[@]}" --json | jq -r '.leases[] | .lease + "/" + .owner') = \
	$'hers/alice\nother/boss' ]] || fail "leases"
! weft pool release other "${alice[@]}" 2>/dev/null || fail "she ended another's"
! weft pool cordon n1 "${alice[@]}" 2>/dev/null || fail "she cordoned a donor"
weft pool release hers "${boss[@]}" >/dev/null || fail "release"

echo "limits of keys"
put() { # NAME SIZE
	echo "-X PUT -d {\"size_bytes\":$2} $url/v1/leases/$1"
}
for key in reader one; do
	# shellcheck disable=SC2046
	as 403 "it gets none of the pool's" "$(token $key)" $(put l 4096)
done
# shellcheck disable=SC2046
as 507 "may have 1 MiB of the pool" "$(token small)" $(put l 2097152)

echo "a name that was led here"
here=https://127.0.0.1:$near/v1/audit
get 200 '"audit"' "$here"
get 200 '"audit"' "${here/127.0.0.1/localhost}"
get 401 "by its name" "$here" -H "Host: evil.example:$near"
get 401 "by its name" "$here" -H "Host: localhost.evil.example"
get 401 "by its name" "$here" -H "Host: $(uname -n).evil.example"
get 200 '"audit"' "$here" -H "Host: $(uname -n):$near"
as 200 '"audit"' "$(token boss)" "$here" -H "Host: pool.example"

echo "who has many connections"
timeout 60 python3 - "$TMP/pool.sock" <<-'END'
	import socket, sys
	def ask():
	    s = socket.socket(socket.AF_UNIX)
	    s.settimeout(10)
	    try:
	        s.connect(sys.argv[1])
	        s.sendall(b"GET /v1/status HTTP/1.1\r\nHost: pool\r\n\r\n")
	        return s if s.recv(12) == b"HTTP/1.1 200" else None
	    except OSError:
	        return None
	there = [s for s in [ask() for _ in range(80)] if s]
	assert 60 <= len(there) <= 64, len(there)
	there.pop().close()
	for _ in range(100):
	    if ask():
	        break
	else:
	    sys.exit("nobody comes in any more")
END

echo "certificates"
mutual=(--cert "$TMP/certs/client-cert.pem" --key "$TMP/certs/client-key.pem")
get 401 "key 'carol' is not known here" "${mutual[@]}" "$url/v1/status"
new carol
wait_for get 200 '"pool"' "${mutual[@]}" "$url/v1/status"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=carol \
	-keyout "$TMP/false.key" -out "$TMP/false.pem" 2>/dev/null
get 401 "is not accepted here" --cert "$TMP/false.pem" --key "$TMP/false.key" "$url/v1/status"

if [[ -w /dev/fuse ]]; then
	echo "a job's children ask as it does"
	weft pool job-start "${boss[@]}" --job 7 --node m1 --dir "$TMP/jobs" --want weft=1M \
		--allow-insecure 2>"$TMP/err"
	grep -qx "export WEFT_FILE=$TMP/jobs/7/memory" "$TMP/jobs/7/env" ||
		fail "$(cat "$TMP/jobs/7/env" "$TMP/err")"
	weft pool job-end "${boss[@]}" --job 7 --node m1 --dir "$TMP/jobs" || fail "job-end"
fi

echo "a key that is gone"
weft key revoke alice --store "$keys" >/dev/null
gone_now() { as 401 "of no key" "$(token alice)" "$url/v1/status"; }
wait_for gone_now

echo "a key that is revoked while it asks"
mkfifo "$TMP/body"
curl -sSv -T - -H "Expect:" -H "Authorization: Bearer $(token boss)" -w '\n%{http_code}' \
	--unix-socket "$TMP/pool.sock" http://pool/v1/quotas/user/eve \
	<"$TMP/body" >"$TMP/late" 2>"$TMP/trace" &
late=$!
exec {body}>"$TMP/body"
printf '{"bytes": ' >&"$body"
asks() { grep -q '^> PUT' "$TMP/trace"; }
wait_for asks
as 200 '"pool"' "$(token boss)" "$url/v1/status"
weft key revoke boss --store "$keys" >/dev/null
boss_is_gone() { as 401 "of no key" "$(token boss)" "$url/v1/status"; }
wait_for boss_is_gone
printf '777}' >&"$body"
exec {body}>&-
wait "$late" || fail "curl: $(<"$TMP/trace")"
[[ $(tail -n 1 "$TMP/late") = 401 ]] || fail "$(<"$TMP/late")"
! weft pool quotas | grep eve || fail "what was asked with a revoked key was done"

echo "other authorities of this machine"
make_certificates "$TMP/other" dora
stop_pool
start_pool --listen "192.0.2.1:$port" --tls-certificates "$TMP/other"
# with_system DIRECTORY: as seen by one whose system trusts the other authority.
with_system() {
	# shellcheck disable=SC2016
	unshare --mount bash -c 'mount -t tmpfs none /etc/ssl/certs &&
		cp "$1/other/ca-cert.pem" /etc/ssl/certs/ && openssl rehash /etc/ssl/certs &&
		exec weft pool status --url "$2" --tls-certificates "$1/$3"' \
		- "$TMP" "$url" "$1" 2>&1
}
if unshare --mount mount -t tmpfs none /etc/ssl/certs 2>/dev/null; then
	said=$(with_system other) || :
	[[ $said = *"key 'dora' is not known here"* ]] || fail "$said"
	install -D -m 600 "$TMP/certs/ca-cert.pem" "$TMP/strict/ca-cert.pem"
	said=$(with_system strict) || :
	[[ $said = *"verification failed"* ]] || fail "$said"
fi

echo "other users of this machine"
nobody() { setpriv --reuid 65534 --clear-groups "$@"; }
chmod 711 "$TMP"
# The directories above may be closed to others.
if ((EUID == 0)) && nobody test -w "$TMP/pool.sock" 2>/dev/null; then
	status=$(nobody curl -sS --unix-socket "$TMP/pool.sock" http://pool/v1/leases)
	[[ $status = '{"leases":[]}' ]] || fail "$status"
	status=$(nobody curl -sS --unix-socket "$TMP/pool.sock" http://pool/v1/audit)
	[[ $status = *"right admin"* ]] || fail "$status"
fi
