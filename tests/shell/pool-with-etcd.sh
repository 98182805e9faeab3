# SPDX-License-Identifier: MIT
# A coordinator with its state at etcd: what was said to be done is there, whatever is lost on the
# way, at each step of a new picture; a leader that was stopped says nothing old when it goes on.
# tier: long
# timeout: 600
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "${BASH_SOURCE[0]%/*}/../pool.sh"
. "${BASH_SOURCE[0]%/*}/../etcd.sh"
need_tool jq curl etcd python3
[[ $WEFT_PRESET != release ]] || skip "there are no steps in this build"

start_etcd
python3 "$WEFT_SRC/tests/support/lossy-proxy.py" "${ETCD##*:}" "$TMP" >"$TMP/proxy" &
wait_for test -s "$TMP/proxy"
alloc() { weft pool alloc "$@" --size 1M >"$TMP/out" 2>&1; }
leads() { weft pool status >/dev/null 2>&1; }
nr_noted() { weft pool audit --json | jq -s --arg what "$1" --arg object "$2" \
	'map(select(.what == $what and .object == $object)) | length'; }

echo "an answer of etcd's is lost, and a question"
POOL_STATE=(--etcd "http://127.0.0.1:$(<"$TMP/proxy")")
start_pool
pool_donor n1 64M
for lost in lose ask; do
	echo /v3/kv/txn >"$TMP/$lost"
	! alloc "$lost" || fail "nothing was lost: $(<"$TMP/out")"
	grep -q "whether it has changed is not known" "$TMP/out" || fail "$(<"$TMP/out")"
	[[ ! -e $TMP/$lost ]] || fail "it is not lost yet"
	wait_for -t 40 alloc "$lost"
	[[ $(nr_noted alloc "$lost") = 1 ]] || fail "$(weft pool audit)"
done
[[ $(weft list "$(weft pool donors --json | jq -r '.donors[0].uri')" --json | jq length) = 2 ]] ||
	fail "$(weft pool leases)"
for lost in lose ask; do
	weft pool release "$lost" >/dev/null || fail "release $lost"
done
stop_pool || fail "the coordinator's end"
stop_donor || fail "the donor's end"

# report NR: so many reports of a donor that is elsewhere each time; prints how many were heard.
cat >"$TMP/report" <<'PY'
import http.client, json, socket, sys

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host_path)

asks = Unix("pool")
asks.host_path = sys.argv[1]
heard = 0
try:
    for i in range(int(sys.argv[2])):
        asks.request("POST", "/v1/donors/wanders", json.dumps({"since": 1, "lent_bytes": 1 << 20,
            "uri": "weft://%s:%d" % ("x" * 240, i), "regions": [], "refused": [], "stays": []}),
            {"Content-Type": "application/json"})
        answer = asks.getresponse()
        answer.read()
        if answer.status != 200:
            break
        heard += 1
except (OSError, http.client.HTTPException):
    pass
print(heard)
PY

echo "the first picture"
POOL_STATE=(--etcd "$ETCD" --etcd-prefix /pictures)
for step in pool-picture pool-picture-noted; do
	! (WEFT_STEP=$step=kill start_pool 2>"$TMP/err") || fail "it was not killed at $step"
	start_pool
	wait_for -t 40 leads # a leader that was killed is waited for
	stop_pool || fail "the coordinator's end"
	POOL_STATE=(--etcd "$ETCD" --etcd-prefix /more)
done

echo "later pictures"
POOL_STATE=(--etcd "$ETCD" --etcd-prefix /pictures)
all=0
for step in pool-picture pool-picture-noted; do
	WEFT_STEP=$step=kill start_pool
	wait_for -t 40 leads
	heard=$(python3 "$TMP/report" "$TMP/pool.sock" 4000)
	gone "$POOL_PID" || fail "it was not killed at $step, after $heard reports"
	echo "$step: killed after $heard reports"
	((all += heard))
	start_pool
	wait_for -t 40 leads
	noted=$(nr_noted donor wanders)
	# The last may be noted although nobody was told.
	((noted >= all && noted <= all + 1)) || fail "$noted are noted, and $all were heard"
	all=$noted
	stop_pool KILL
done 2>/dev/null
size() {
	jq -n '{key: ("/pictures/" | @base64), range_end: ("/pictures0" | @base64),
		keys_only: true}' | curl -sS "$ETCD/v3/kv/range" -d @- |
		jq '.kvs | length'
}
(($(size) > 0 && $(size) < all)) ||
	fail "what a picture made needless is still there: $(size) keys"

echo "a leader that is stopped, and goes on"
# shellcheck disable=SC2034
POOL_STATE=(--etcd "$ETCD" --etcd-prefix /stopped)
start_pool
first=$POOL_PID
POOL_SOCKET=$TMP/pool2.sock start_pool
second=$POOL_PID
export WEFT_POOL=unix:$TMP/pool.sock,unix:$TMP/pool2.sock
pool_donor n1 64M
alloc before || fail "$(<"$TMP/out")"
kill -STOP "$first"
led() { weft pool status --url "unix:$TMP/pool2.sock" >/dev/null 2>&1; }
wait_for -t 40 led
WEFT_POOL=unix:$TMP/pool2.sock
wait_for has_donor n1
alloc meanwhile || fail "$(<"$TMP/out")"
# It was asked while it was stopped, and answers as it goes on.
curl_pool GET /v1/leases >"$TMP/late" &
late=$!
sleep 1
kill -CONT "$first"
wait "$late" || fail "curl"
for i in 1 2 3 4 5; do
	[[ $(tail -n 1 "$TMP/late") = 503 && $(<"$TMP/late") = *"does not lead"* ]] ||
		fail "answer $i is old: $(<"$TMP/late")"
	curl_pool GET /v1/leases >"$TMP/late"
done
kill -TERM "$second"
wait "$second" || fail "the second one's end"
WEFT_POOL=unix:$TMP/pool.sock
wait_for -t 40 leads
[[ $(weft pool leases --json | jq -r '.leases[].lease') = $'before\nmeanwhile' ]] ||
	fail "$(weft pool leases)"
