/* SPDX-License-Identifier: MIT */
/*
 * The file of a push or a pull; see sync-private.h.
 *
 * Where little differs, a chunk is read to be hashed and no more, into memory that the processor's
 * cache has, and the leaves that differ are read once more.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/main/sync-private.h"

/* Reads up to len bytes at off of the file, or the next ones of a stream: fewer at its end. */
static ssize_t read_file(const struct sync *s, uint8_t *to, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = s->config.stream
			? read(s->config.fd, to + done, len - done)
			: pread(s->config.fd, to + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR && !*s->config.stop)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Reads n bytes of the chunk and hashes their leaves.  How many there were, or -errno. */
static int take(struct sync *s, struct chunk *chunk, uint32_t off, uint32_t n, uint8_t *to,
	struct weft_error *err)
{
	ssize_t got = read_file(s, to, n, chunk->off + off);

	if (got == -EINTR)
		return -EINTR;
	if (got < 0)
		return weft_error_set(err, (int)-got, "cannot read %s: %s", s->config.name,
			strerror((int)-got));
	if (s->config.direction == SYNC_PULL && got < (ssize_t)n) {
		/* The region is longer than the file yet. */
		memset(to + got, 0, n - (size_t)got);
		got = n;
	}
	weft_hasher_hash_blocks(&s->hasher, LEAF_BYTES, to, (size_t)got,
		chunk->ours + off / LEAF_BYTES * WEFT_HASH_BYTES);
	return (int)got;
}

int sync_load(struct sync *s, struct chunk *chunk, uint32_t want, bool keeps, uint32_t *ret,
	struct weft_error *err)
{
	chunk->kept = keeps;
	for (*ret = 0; *ret < want;) {
		const uint32_t n = (uint32_t)weft_min(READ_BYTES, want - *ret);
		int got = take(s, chunk, *ret, n, keeps ? chunk->data + *ret : s->scratch, err);

		if (got < 0)
			return got;
		*ret += (uint32_t)got;
		if ((uint32_t)got < n)
			break;
	}
	return 0;
}

int sync_keep_leaves(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	for (uint64_t left = chunk->kept ? 0 : chunk->leaves; left; left &= left - 1) {
		const uint32_t off = (uint32_t)__builtin_ctzll(left) * LEAF_BYTES;
		const uint32_t n = (uint32_t)weft_min(LEAF_BYTES, chunk->len - off);
		int got = take(s, chunk, off, n, chunk->data + off, err);

		if (got < 0)
			return got;
		if ((uint32_t)got < n)
			return sync_file_is_short(s, err);
	}
	return 0;
}

int sync_file_is_short(const struct sync *s, struct weft_error *err)
{
	return weft_error_set(err, EIO, "%s became shorter meanwhile", s->config.name);
}

int sync_write_file(const struct sync *s, const uint8_t *data, uint64_t off, uint32_t len)
{
	while (len > 0) {
		ssize_t n = pwrite(s->config.fd, data, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		off += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return 0;
}
