/* SPDX-License-Identifier: MIT */
/*
 * The rows of a seal with a file, on their way to disk: a thread of its own writes what lanes have
 * logged, all of it at once, and then tells them.  Lanes hold the lock for a copy; nobody holds it
 * over a write.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-disk.h"

enum {
	QUEUE_FIRST = 8192, /* entries that there is memory for from the beginning */
	SETTLED_MAX = 8192, /* rows that a restart may have to tell, about */
};

/* ---- the thread ---- */

struct batch {
	struct seal_entry *entries;
	size_t nr;
	uint64_t to; /* tickets */
	bool table;
};

/* Under the lock. */
static struct batch take_batch(struct seal_disk *disk)
{
	struct batch batch = {disk->queue, disk->nr_queued, disk->nr_asked, disk->commits};
	const size_t max = disk->max_queue;

	disk->queue = disk->spare;
	disk->max_queue = disk->max_spare;
	disk->spare = batch.entries;
	disk->max_spare = max;
	disk->nr_queued = 0;
	disk->commits = false;
	return batch;
}

static void note_failure(struct seal_disk *disk, uint64_t to, int error)
{
	const uint64_t from = atomic_load(&disk->nr_done);

	if (disk->error == 0)
		weft_err("%s cannot be written: %s; nothing is sent to the donor until it can be",
			disk->path, strerror(-error));
	/*
	 * What failed before may not have been looked at yet: it fails all the same, and with it
	 * what was written in between and was not looked at either.
	 */
	if (disk->error == 0)
		disk->failed_from = from;
	disk->failed_to = to;
	disk->error = error;
}

static void *write_log(void *ctx)
{
	struct seal *seal = ctx;
	struct seal_disk *disk = seal->disk;

	pthread_mutex_lock(&disk->lock);
	while (!disk->ends) {
		if (disk->nr_asked == atomic_load(&disk->nr_done)) {
			weft_cond_wait_until(&disk->wanted, &disk->lock, UINT64_MAX);
			continue;
		}
		const struct batch batch = take_batch(disk);
		const struct seal_watcher watcher = disk->watcher;
		disk->busy = true;
		pthread_mutex_unlock(&disk->lock);
		int r = watcher.sync && batch.nr > 0 ? watcher.sync(watcher.ctx) : 0;
		if (r == 0)
			r = seal_disk_write(seal, batch.table, batch.entries, batch.nr);
		pthread_mutex_lock(&disk->lock);
		disk->busy = false;
		pthread_cond_signal(&disk->idle);
		if (r < 0)
			note_failure(disk, batch.to, r);
		disk->commits |= r < 0 && batch.table;
		atomic_store(&disk->nr_done, batch.to);
		if (disk->watcher.wake)
			disk->watcher.wake(disk->watcher.ctx);
	}
	pthread_mutex_unlock(&disk->lock);
	return NULL;
}

int seal_log_start(struct seal *seal, struct weft_error *err)
{
	struct seal_disk *disk = seal->disk;

	if (disk->runs)
		return 0;
	if (!disk->queue) {
		disk->queue = calloc(QUEUE_FIRST, sizeof(*disk->queue));
		disk->spare = calloc(QUEUE_FIRST, sizeof(*disk->spare));
		disk->max_queue = disk->max_spare = QUEUE_FIRST;
	}
	disk->ends = false;
	int r = disk->queue && disk->spare
		? weft_thread_create(&disk->thread, NULL, write_log, seal)
		: -ENOMEM;
	disk->runs = r == 0;
	return r < 0 ? weft_error_set(err, -r, "cannot seal: no thread for %s: %s", disk->path,
			       strerror(-r))
		     : 0;
}

void seal_log_stop(struct seal *seal)
{
	struct seal_disk *disk = seal->disk;

	if (!disk->runs)
		return;
	pthread_mutex_lock(&disk->lock);
	disk->ends = true;
	pthread_cond_signal(&disk->wanted);
	pthread_mutex_unlock(&disk->lock);
	pthread_join(disk->thread, NULL);
	disk->runs = false;
}

void seal_watch(struct seal *seal, const struct seal_watcher *watcher)
{
	struct seal_disk *disk = seal->disk;

	pthread_mutex_lock(&disk->lock);
	while (disk->busy)
		weft_cond_wait_until(&disk->idle, &disk->lock, UINT64_MAX);
	disk->watcher = watcher ? *watcher : (struct seal_watcher){0};
	pthread_mutex_unlock(&disk->lock);
}

/* ---- what it is asked ---- */

/* Under the lock.  False: there is no memory. */
static bool has_room(struct seal_disk *disk, size_t nr)
{
	if (disk->nr_queued + nr <= disk->max_queue)
		return true;
	const size_t max = 2 * (disk->nr_queued + nr);
	struct seal_entry *more = realloc(disk->queue, max * sizeof(*more));
	if (!more)
		return false;
	disk->queue = more;
	disk->max_queue = max;
	return true;
}

/* Under the lock. */
static uint64_t ask(struct seal_disk *disk)
{
	pthread_cond_signal(&disk->wanted);
	return ++disk->nr_asked;
}

uint64_t seal_log(struct seal *seal, uint64_t first, uint64_t nr, const struct seal_row *rows)
{
	struct seal_disk *disk = seal->disk;
	uint64_t ticket = 0;

	pthread_mutex_lock(&disk->lock);
	if (has_room(disk, nr)) {
		for (uint64_t i = 0; i < nr; i++) {
			struct seal_entry *entry = &disk->queue[disk->nr_queued++];

			entry->block = first + i;
			entry->nonce = atomic_load(&rows[i].nonce);
			memcpy(entry->tag, rows[i].tag, SEAL_TAG_BYTES);
		}
		ticket = ask(disk);
	}
	pthread_mutex_unlock(&disk->lock);
	return ticket;
}

uint64_t seal_commit(struct seal *seal)
{
	struct seal_disk *disk = seal->disk;

	pthread_mutex_lock(&disk->lock);
	disk->commits = true;
	const uint64_t ticket = ask(disk);
	pthread_mutex_unlock(&disk->lock);
	return ticket;
}

uint64_t seal_logged(struct seal *seal)
{
	pthread_mutex_lock(&seal->disk->lock);
	const uint64_t ticket = seal->disk->nr_asked;
	pthread_mutex_unlock(&seal->disk->lock);
	return ticket;
}

int seal_is_done(struct seal *seal, uint64_t ticket)
{
	struct seal_disk *disk = seal->disk;

	if (atomic_load(&disk->nr_done) < ticket)
		return 0;
	pthread_mutex_lock(&disk->lock);
	const bool failed = disk->error && ticket > disk->failed_from && ticket <= disk->failed_to;
	const int error = disk->error;
	pthread_mutex_unlock(&disk->lock);
	return failed ? error : 1;
}

/* Under the lock: the table's page has to be written. */
static void change_page(struct seal_disk *disk, uint64_t block)
{
	disk->changed[block / SEAL_PAGE_ROWS / 64] |= UINT64_C(1) << block / SEAL_PAGE_ROWS % 64;
}

void seal_settle(struct seal *seal, uint64_t first, uint64_t nr, const struct seal_row *rows)
{
	struct seal_disk *disk = seal->disk;

	pthread_mutex_lock(&disk->lock);
	for (uint64_t i = 0; i < nr; i++) {
		memcpy(seal->rows[first + i].tag, rows[i].tag, SEAL_TAG_BYTES);
		atomic_store_explicit(&seal->rows[first + i].nonce, rows[i].nonce,
			memory_order_relaxed);
		change_page(disk, first + i);
	}
	/* Not so that anybody waits: what a restart has to tell stays small. */
	disk->nr_settled += nr;
	if (disk->nr_settled > SETTLED_MAX) {
		disk->nr_settled = 0;
		disk->commits = true;
	}
	pthread_mutex_unlock(&disk->lock);
}

void seal_log_zeros(struct seal *seal, uint64_t first, uint64_t nr)
{
	struct seal_disk *disk = seal->disk;
	const uint64_t nonce = SEAL_ZEROS | (uint64_t)seal->own_salt << SEAL_COUNTER_BITS |
		(atomic_fetch_add(&seal->counter, 1) + 1);

	pthread_mutex_lock(&disk->lock);
	if (has_room(disk, 1))
		disk->queue[disk->nr_queued++] =
			(struct seal_entry){.block = first, .nonce = nonce, .nr = nr};
	else
		disk->commits = true; /* the table says it as well */
	for (uint64_t i = first; i < first + nr; i++)
		if (!seal_row_is_zeros(&seal->rows[i])) {
			atomic_store_explicit(&seal->rows[i].nonce, nonce, memory_order_relaxed);
			change_page(disk, i);
		}
	ask(disk);
	pthread_mutex_unlock(&disk->lock);
}

/* ---- doubts ---- */

static int by_block(const void *key, const void *element)
{
	const struct seal_entry *entry = element;
	const uint64_t block = *(const uint64_t *)key;

	return block < entry->block ? -1 : block > entry->block;
}

const struct seal_entry *seal_newest_doubt(const struct seal *seal, uint64_t block)
{
	const struct seal_disk *disk = seal->disk;
	const struct seal_entry *found = disk->nr_doubts == 0
		? NULL
		: bsearch(&block, disk->doubts, disk->nr_doubts, sizeof(*found), by_block);

	while (found && found + 1 < disk->doubts + disk->nr_doubts && found[1].block == block)
		found++;
	return found;
}

const struct seal_entry *seal_older_doubt(const struct seal *seal, const struct seal_entry *entry)
{
	return entry > seal->disk->doubts && entry[-1].block == entry->block ? entry - 1 : NULL;
}

void seal_take_doubt(struct seal *seal, const struct seal_entry *entry)
{
	struct seal_disk *disk = seal->disk;
	struct seal_row *row = &seal->rows[entry->block];

	memcpy(row->tag, entry->tag, SEAL_TAG_BYTES);
	atomic_store(&row->nonce, entry->nonce);
	change_page(disk, entry->block);
}

uint64_t seal_doubts(const struct seal *seal, uint64_t *first, uint64_t max)
{
	const struct seal_disk *disk = seal->disk;
	uint64_t nr = 0;

	for (size_t i = 0; disk && i < disk->nr_doubts; i++) {
		const uint64_t block = disk->doubts[i].block;

		if (block < *first + nr)
			continue;
		if (nr > 0 && block != *first + nr)
			break;
		if (nr == 0)
			*first = block;
		if (++nr == max)
			break;
	}
	return nr;
}

int seal_end_doubts(struct seal *seal, struct weft_error *err)
{
	struct seal_disk *disk = seal->disk;

	if (disk->runs)
		return 0;
	int r = seal_disk_settle(seal);
	return r < 0 ? weft_error_set(err, -r, "cannot write %s: %s", disk->path, strerror(-r))
		     : seal_log_start(seal, err);
}
