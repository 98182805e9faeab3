/* SPDX-License-Identifier: MIT */
/*
 * Promised leases of memory and block devices, which have no mark: a file keeps them for the time
 * after the contents, or the donor that knows of them, are gone.  Then newcomers wait until the
 * leases are over.
 *
 * The file is an open mark (mark.c).  It is replaced as a whole, and made durable, when a new
 * attachment holds the region, and removed when none does.
 *
 * Threads: any, under the region's promise_lock.  The donor takes that lock under its own, so it is
 * never held for longer than it takes to write a small file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/region/region-private.h"
#include "fabric/base/replace.h"
#include "fabric/base/util.h"

static int load(struct weft_region *region)
{
	WEFT_CLEANUP_FREE struct region_mark *mark = calloc(1, sizeof(*mark));
	WEFT_CLEANUP_CLOSE int fd =
		open(region->promise_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	char text[REGION_MARK_MAX];

	if (!mark)
		return -ENOMEM;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	ssize_t n = read(fd, text, sizeof(text));
	if (n < 0)
		return -errno;
	if (region_mark_parse(text, (size_t)n, mark) < 0)
		return -EBADMSG;
	region->crashed = true;
	region->promised_lease_ms = region->note->lease_ms = mark->lease_ms;
	memcpy(region->note->key, mark->key, sizeof(mark->key));
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		mark->table[i].flags = 0;
	memcpy(region->generations, mark->table, sizeof(mark->table));
	return 0;
}

int weft_region_keep_promises(struct weft_region *region, const char *path, bool is_new)
{
	if (!region->note)
		region->note = calloc(1, sizeof(*region->note));
	region->promise_path = region->note ? strdup(path) : NULL;
	if (!region->promise_path) {
		region->forgets |= is_new;
		return -ENOMEM;
	}
	if (is_new) {
		int r = load(region);

		/*
		 * That file says who held the region, or nobody did.  A file that cannot be read
		 * may say anything.
		 */
		region->forgets = r < 0;
		return r;
	}
	/* There may be a file, to be removed once nobody holds the region. */
	region->note->lease_ms = region->promised_lease_ms;
	return 0;
}

static bool is_known(const struct region_note *note, const struct weft_generation *gen)
{
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (note->table[i].generation != 0 && note->table[i].held &&
			memcmp(note->table[i].id_hash, gen->id_hash, sizeof(gen->id_hash)) == 0)
			return true;
	return false;
}

static bool is_due(const struct region_note *note,
	const struct weft_generation table[WEFT_NR_GENERATIONS], uint32_t lease_ms)
{
	if (lease_ms > note->lease_ms)
		return true;
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (table[i].generation != 0 && table[i].held && !is_known(note, &table[i]))
			return true;
	return false;
}

int region_note_promises(struct weft_region *region,
	const struct weft_generation table[WEFT_NR_GENERATIONS], uint64_t seq, uint32_t lease_ms)
{
	struct region_note *note = region->note;
	char text[REGION_MARK_MAX];
	int r = 0;

	pthread_mutex_lock(&region->promise_lock);
	/* A newer table may have been written already; it has all holders of this one. */
	if (seq > note->seq && is_due(note, table, lease_ms)) {
		WEFT_CLEANUP_FREE struct region_mark *mark = calloc(1, sizeof(*mark));

		if (mark) {
			mark->epoch = region->epoch;
			mark->size_bytes = (int64_t)region->size_bytes;
			mark->lease_ms = lease_ms;
			memcpy(mark->key, note->key, sizeof(mark->key));
			memcpy(mark->table, table, sizeof(mark->table));
			r = weft_replace_file(region->promise_path, text,
				region_mark_format(mark, text));
		} else {
			r = -ENOMEM;
		}
		if (r == 0) {
			memcpy(note->table, table, sizeof(note->table));
			note->lease_ms = lease_ms;
			note->seq = seq;
		}
	}
	pthread_mutex_unlock(&region->promise_lock);
	return r;
}

void weft_region_forget_promises(struct weft_region *region)
{
	if (!region->promise_path)
		return;
	pthread_mutex_lock(&region->promise_lock);
	if (region->note->lease_ms > 0)
		unlink(region->promise_path);
	region->note->lease_ms = 0;
	memset(region->note->table, 0, sizeof(region->note->table));
	pthread_mutex_unlock(&region->promise_lock);
}
