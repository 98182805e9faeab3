/* SPDX-License-Identifier: MIT */
/*
 * A file region's mark at its file: an extended attribute.
 *
 * From before the first write it says "open", durably; only a clean end replaces it by "clean" with
 * the file's size and time, after the data is durable.  So "clean", with the file's present size
 * and time, means that nothing happened since.
 *
 * Threads: any; the notes of what the mark has are under flush_lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/base/util.h"
#include "fabric/region/region-private.h"

#define MARK_NAME "user.weft.epoch"

static bool fits(const struct region_mark *mark, const struct stat *st)
{
	return mark->size_bytes == (int64_t)st->st_size &&
		mark->mtime_s == (int64_t)st->st_mtim.tv_sec &&
		mark->mtime_ns == (uint32_t)st->st_mtim.tv_nsec;
}

static uint64_t sum_of(const char *text, ssize_t len)
{
	return len < 0 ? 0 : weft_max(XXH3_64bits(text, (size_t)len), 1);
}

int region_mark_check(const struct weft_region *region)
{
	char text[REGION_MARK_MAX];
	ssize_t n = fgetxattr(region->fd, MARK_NAME, text, sizeof(text));

	if (n < 0 && errno != ENODATA && errno != ENOTSUP)
		return -errno;
	return sum_of(text, n) == region->note->mark_sum ? 0 : -EUCLEAN;
}

int region_mark_write(struct weft_region *region, bool clean, const struct weft_transfer *transfer)
{
	struct region_note *note = region->note;
	WEFT_CLEANUP_FREE struct region_mark *mark = calloc(1, sizeof(*mark));
	char text[REGION_MARK_MAX];
	struct stat st;

	if (!mark)
		return -ENOMEM;
	if (fstat(region->fd, &st) < 0)
		return -errno;
	mark->clean = clean;
	if (transfer)
		mark->transfer = *transfer;
	mark->epoch = region->epoch;
	mark->size_bytes = (int64_t)st.st_size;
	mark->mtime_s = (int64_t)st.st_mtim.tv_sec;
	mark->mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
	mark->lease_ms = note->lease_ms;
	mark->stripe = note->stripe;
	memcpy(mark->key, note->key, sizeof(mark->key));
	memcpy(mark->table, note->table, sizeof(mark->table));
	size_t len = region_mark_format(mark, text);
	if (fsetxattr(region->fd, MARK_NAME, text, len, 0) < 0)
		return errno == EPERM ? -ENOTSUP : -errno;
	note->mark_sum = sum_of(text, (ssize_t)len);
	if (fsync(region->fd) == 0)
		return 0;
	int r = -errno;
	/* The error may be one of what was written, which a flush is told no more. */
	if (atomic_load(&region->marked))
		atomic_store(&region->lost, r);
	return r;
}

int region_mark_take(struct weft_region *region, const struct stat *st)
{
	WEFT_CLEANUP_FREE struct region_mark *mark = calloc(1, sizeof(*mark));
	struct region_note *note = calloc(1, sizeof(*note));
	char text[REGION_MARK_MAX];

	region->note = note;
	if (!mark || !note)
		return -ENOMEM;
	region->epoch = weft_random_name();
	region->tenure = weft_random_name();
	weft_random(note->key, sizeof(note->key));
	ssize_t n = fgetxattr(region->fd, MARK_NAME, text, sizeof(text));
	note->mark_sum = sum_of(text, n);
	if (n < 0 && errno == ENODATA)
		return 0;
	if (n < 0 || region_mark_parse(text, (size_t)n, mark) < 0) {
		region->unmarked = n < 0 && errno == ENOTSUP;
		region->forgets = !region->read_only && !region->unmarked;
		return 0;
	}
	region->marked_epoch = mark->epoch;
	/* Another program may have changed it. */
	if (fits(mark, st))
		region->marked_transfer = mark->transfer;
	region->was_clean = mark->clean && !mark->transfer.way && fits(mark, st);
	/* A change of the file by another program does not make it another part of a device. */
	region->stripe = note->stripe = mark->stripe;
	if (region->read_only) {
		/*
		 * No attachment can be noted in the mark; a donor that lends the file for writing
		 * changes the mark.
		 */
		if (region->was_clean)
			region->epoch = weft_max(XXH3_64bits(text, (size_t)n), 1);
		return 0;
	}
	/*
	 * It was not closed, or another program changed it since: a holder may still answer from
	 * memory.
	 */
	region->crashed = !region->was_clean;
	if (region->was_clean)
		region->epoch = mark->epoch;
	region->promised_lease_ms = mark->lease_ms;
	note->lease_ms = mark->lease_ms;
	static const uint8_t none[REGION_KEY_BYTES];
	if (memcmp(mark->key, none, sizeof(none)) != 0)
		memcpy(note->key, mark->key, sizeof(note->key));
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (mark->table[i].flags & WEFT_ENTRY_HERE)
			mark->table[i].flags = WEFT_ENTRY_OPEN;
	memcpy(note->table, mark->table, sizeof(note->table));
	memcpy(region->generations, mark->table, sizeof(mark->table));
	return 0;
}

int region_mark_note_table(struct weft_region *region,
	const struct weft_generation table[WEFT_NR_GENERATIONS], const struct weft_stripe *stripe,
	uint64_t seq, uint32_t lease_ms)
{
	struct region_note *note = region->note;
	bool due;
	int r = 0;

	pthread_mutex_lock(&region->flush_lock);
	if (atomic_load(&region->settled)) {
		/* Whoever asked is told that the region moves, as soon as it looks again. */
	} else if (seq > note->seq && region_mark_check(region) == -EUCLEAN) {
		/*
		 * The copy's own mark says whose contents these are, once the file is opened anew.
		 */
		atomic_store(&region->lost, -EUCLEAN);
		r = -EUCLEAN;
	} else if (seq > note->seq) {
		bool marked = atomic_load(&region->marked);
		uint32_t noted_ms = note->lease_ms;
		struct weft_stripe noted_stripe = note->stripe;

		/*
		 * After a crash the open mark says how long nobody else may be granted the file,
		 * and which part of a device it is.
		 */
		due = !marked || lease_ms > note->lease_ms ||
			!weft_stripe_equal(stripe, &note->stripe);
		note->stripe = *stripe;
		note->lease_ms = (uint32_t)weft_max(lease_ms, marked ? note->lease_ms : 0);
		memcpy(note->table, table, sizeof(note->table));
		r = due ? region_mark_write(region, !marked, NULL) : 0;
		if (r == -ENOTSUP && !region->was_clean)
			r = 0; /* there are no attributes: each opening is a new epoch */
		/*
		 * The present mark does not have this grant, so the grant is not made, and the next
		 * try has to note it.
		 */
		if (r < 0) {
			note->lease_ms = noted_ms;
			note->stripe = noted_stripe;
		} else {
			note->seq = seq;
		}
	}
	pthread_mutex_unlock(&region->flush_lock);
	return r;
}

int region_file_check_write(struct weft_region *region)
{
	int r = region_file_check(region);

	if (r < 0 || atomic_load_explicit(&region->marked, memory_order_acquire))
		return r;
	pthread_mutex_lock(&region->flush_lock);
	if (atomic_load(&region->settled)) {
		r = -EIO;
	} else if (!atomic_load(&region->marked)) {
		r = region_mark_check(region);
		if (r == -EUCLEAN)
			atomic_store(&region->lost, r);
		else
			r = region_mark_write(region, false, NULL);
		/*
		 * Without attributes each opening is a new epoch; a clean mark that cannot be
		 * replaced would lie.
		 */
		if (r == -ENOTSUP && !region->was_clean)
			r = 0;
		if (r == 0)
			atomic_store_explicit(&region->marked, true, memory_order_release);
	}
	pthread_mutex_unlock(&region->flush_lock);
	return r < 0 ? -EIO : 0;
}

int region_mark_begin_epoch(struct weft_region *region, uint64_t epoch)
{
	const uint64_t was = region->epoch;

	pthread_mutex_lock(&region->flush_lock);
	int r = atomic_load(&region->lost) < 0 ? -EIO : region_mark_check(region);
	if (r == 0) {
		region->epoch = epoch;
		r = region_mark_write(region, true, NULL);
	}
	if (r < 0)
		region->epoch = was;
	pthread_mutex_unlock(&region->flush_lock);
	return r;
}
