# SPDX-License-Identifier: MIT
# presets: dev asan
# A directory's regular files are regions; nothing else is, by name or by link.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool nbdinfo qemu-img qemu-io

mkdir -p "$TMP/dir/sub"
echo secret >"$TMP/secret"
truncate -s 1M "$TMP/dir/a.img" "$TMP/dir/sub/b.img" "$TMP/dir/ä ö.img"
ln -s ../secret "$TMP/dir/link"
ln -s /etc/passwd "$TMP/dir/absolute"
ln -s sub "$TMP/dir/sublink"
mkfifo "$TMP/dir/fifo"
start_donor --directory "$TMP/dir"
grep -q "^region 'sub/b.img': file, 1 MiB ; map it with:  weft attach weft://127.0.0.1:$PORT/sub/b.img " "$DONOR_LOG" ||
	fail "$(cat "$DONOR_LOG")"

export_of() { # NAME
	timeout 10 qemu-img info --image-opts \
		"driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=127.0.0.1,file.server.port=$PORT,file.export=$1" \
		>"$TMP/info" 2>&1
}
for name in a.img sub/b.img 'ä ö.img'; do
	export_of "$name" || fail "'$name' is not served: $(cat "$TMP/info")"
done
for name in ../secret /etc/passwd etc/passwd sub/../../secret link absolute sublink/b.img fifo sub \
	. .. '' \
	"$TMP/secret" sub/../a.img /a.img ./a.img a.img/; do
	! export_of "$name" || fail "'$name' is served"
	grep -q 'no region\|which region' "$TMP/info" || fail "'$name': $(cat "$TMP/info")"
done
[[ $(nbdinfo --list "nbd://127.0.0.1:$PORT" | grep -c '^export=') = 3 ]] ||
	fail "$(nbdinfo --list "nbd://127.0.0.1:$PORT")"

# A file that comes later is a region too; what is written is in the file.
truncate -s 64K "$TMP/dir/late"
qemu-io -f raw "nbd://127.0.0.1:$PORT/late" -c 'write -P 0x61 0 64K' -c flush >/dev/null
[[ $(tr -d a <"$TMP/dir/late" | wc -c) = 0 ]] || fail "not in the file"
stop_donor || fail "exit status $?"
