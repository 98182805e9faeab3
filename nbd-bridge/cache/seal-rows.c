/* SPDX-License-Identifier: MIT */
/* The rows in the file of a seal: their table and their logs, and what is believed of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-disk.h"
#include "nbd-bridge/cache/seal-layout.h"

enum {
	PAGES_AT_ONCE = 128,
	SECTOR_ENTRIES = 15,
	UNSETTLED_MAX = 8, /* rows of a block whose writes all failed */
};

struct page {
	uint64_t sum, number; /* from 1 */
	struct {
		uint64_t nonce;
		uint8_t tag[SEAL_TAG_BYTES];
	} rows[SEAL_PAGE_ROWS];
	uint64_t reserved[2];
};

_Static_assert(sizeof(struct page) == SEAL_PAGE_BYTES, "a page is a page");

struct sector {
	uint64_t sum, log_name;
	uint32_t index, nr;
	struct seal_entry entries[SECTOR_ENTRIES];
	uint64_t reserved;
};

_Static_assert(sizeof(struct sector) == SEAL_SECTOR_BYTES, "a sector is a sector");

/* ---- the order of rows ---- */

static uint64_t salt_of(uint64_t nonce)
{
	return (nonce & ~(SEAL_KNOWN_BAD | SEAL_ZEROS)) >> SEAL_COUNTER_BITS;
}

static uint64_t counter_of(uint64_t nonce)
{
	return nonce & ((UINT64_C(1) << SEAL_COUNTER_BITS) - 1);
}

/* Whether an entry of the log was made after a row: the log's process is the newest. */
static bool is_newer(const struct seal_entry *entry, uint64_t row_nonce)
{
	return row_nonce == 0 || salt_of(row_nonce) != salt_of(entry->nonce) ||
		counter_of(entry->nonce) > counter_of(row_nonce);
}

static uint64_t nonce_of(const struct seal *seal, uint64_t block)
{
	return atomic_load_explicit(&seal->rows[block].nonce, memory_order_relaxed);
}

static bool is_zeros(const struct seal_entry *entry)
{
	return entry->nonce & SEAL_ZEROS;
}

static void swap(struct seal_entry *a, struct seal_entry *b)
{
	const struct seal_entry was = *a;

	*a = *b;
	*b = was;
}

static int by_block_and_age(const void *a, const void *b)
{
	const struct seal_entry *x = a, *y = b;

	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return counter_of(x->nonce) < counter_of(y->nonce) ? -1 : 1;
}

/* ---- the table ---- */

static void set_bit(uint64_t *map, uint64_t i)
{
	map[i / 64] |= UINT64_C(1) << i % 64;
}

/* A page as its rows are now; false: it has not changed. */
static bool take_page(struct seal *seal, uint64_t number, struct page *page)
{
	struct seal_disk *disk = seal->disk;
	const uint64_t bit = UINT64_C(1) << number % 64, first = number * SEAL_PAGE_ROWS;

	memset(page, 0, sizeof(*page));
	pthread_mutex_lock(&disk->lock);
	const bool changed = (disk->changed[number / 64] | disk->unsynced[number / 64]) & bit;
	disk->changed[number / 64] &= ~bit;
	for (uint64_t i = 0; changed && i < SEAL_PAGE_ROWS && first + i < seal->nr_blocks; i++) {
		page->rows[i].nonce = nonce_of(seal, first + i) & ~SEAL_KNOWN_BAD;
		memcpy(page->rows[i].tag, seal->rows[first + i].tag, SEAL_TAG_BYTES);
	}
	pthread_mutex_unlock(&disk->lock);
	page->number = number + 1;
	page->sum = XXH3_64bits(&page->number, sizeof(*page) - sizeof(page->sum));
	return changed;
}

/* The next page from `number` on that may have changed. */
static uint64_t next_changed(struct seal_disk *disk, uint64_t number)
{
	pthread_mutex_lock(&disk->lock);
	while (number < disk->nr_pages) {
		const uint64_t word =
			(disk->changed[number / 64] | disk->unsynced[number / 64]) >> number % 64;

		if (word) {
			number += (unsigned)__builtin_ctzll(word);
			break;
		}
		number = (number / 64 + 1) * 64;
	}
	pthread_mutex_unlock(&disk->lock);
	return number;
}

static int write_table(struct seal *seal)
{
	struct seal_disk *disk = seal->disk;
	WEFT_CLEANUP_FREE struct page *pages = malloc(PAGES_AT_ONCE * sizeof(*pages));
	uint64_t number = 0;
	int r = pages ? 0 : -ENOMEM;

	while (r == 0 && (number = next_changed(disk, number)) < disk->nr_pages) {
		unsigned n = 0;

		while (n < PAGES_AT_ONCE && number + n < disk->nr_pages &&
			take_page(seal, number + n, &pages[n]))
			set_bit(disk->unsynced, number + n++);
		r = seal_disk_write_at(disk, pages, n * sizeof(*pages),
			SEAL_TABLE_AT + number * SEAL_PAGE_BYTES);
		number += n;
	}
	return r;
}

static void table_is_synced(struct seal_disk *disk)
{
	memset(disk->unsynced, 0, (size_t)(disk->nr_pages + 63) / 64 * sizeof(*disk->unsynced));
}

static bool is_blank(const struct page *page)
{
	static const struct page blank;

	return memcmp(page, &blank, sizeof(blank)) == 0;
}

static bool is_whole(const struct page *page, uint64_t number)
{
	return page->number == number + 1 &&
		page->sum == XXH3_64bits(&page->number, sizeof(*page) - sizeof(page->sum));
}

static int load_page(struct seal *seal, uint64_t number, const struct page *page)
{
	const uint64_t first = number * SEAL_PAGE_ROWS;

	if (is_blank(page))
		return 0;
	if (!is_whole(page, number))
		return -EUCLEAN;
	for (uint64_t i = 0; i < SEAL_PAGE_ROWS && first + i < seal->nr_blocks; i++)
		if (page->rows[i].nonce) {
			atomic_store(&seal->rows[first + i].nonce, page->rows[i].nonce);
			memcpy(seal->rows[first + i].tag, page->rows[i].tag, SEAL_TAG_BYTES);
		}
	return 0;
}

/* Pages that were never written are holes, or read as such. */
static int load_table(struct seal *seal)
{
	const struct seal_disk *disk = seal->disk;
	WEFT_CLEANUP_FREE struct page *pages = malloc(PAGES_AT_ONCE * sizeof(*pages));
	int r = pages ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < disk->nr_pages && r == 0;) {
		off_t data = lseek(disk->fd, (off_t)(SEAL_TABLE_AT + at * SEAL_PAGE_BYTES),
			SEEK_DATA);
		if (data > 0)
			at = weft_max(at, ((uint64_t)data - SEAL_TABLE_AT) / SEAL_PAGE_BYTES);
		if ((data < 0 && errno == ENXIO) || at >= disk->nr_pages)
			break;
		const uint64_t nr = weft_min(PAGES_AT_ONCE, disk->nr_pages - at);
		r = seal_disk_read_at(disk, pages, nr * SEAL_PAGE_BYTES,
			SEAL_TABLE_AT + at * SEAL_PAGE_BYTES);
		for (uint64_t i = 0; i < nr && r == 0; i++)
			r = load_page(seal, at + i, &pages[i]);
		at += nr;
	}
	return r;
}

/* ---- the log ---- */

static uint64_t sector_sum(const struct sector *sector)
{
	return XXH3_64bits(&sector->log_name, sizeof(*sector) - sizeof(sector->sum));
}

static uint64_t sectors_of(size_t nr_entries)
{
	return (nr_entries + SECTOR_ENTRIES - 1) / SECTOR_ENTRIES;
}

/* A write never touches a sector that others of its log depend on. */
static int write_sectors(const struct seal_disk *disk, uint64_t name, uint64_t at, uint64_t index,
	const struct seal_entry *entries, size_t nr)
{
	enum { AT_ONCE = 32 };
	struct sector sectors[AT_ONCE];
	int r = 0;

	while (nr > 0 && r == 0) {
		unsigned n = 0;

		memset(sectors, 0, sizeof(sectors));
		for (; n < AT_ONCE && nr > 0; n++) {
			const size_t some = weft_min(SECTOR_ENTRIES, nr);

			sectors[n].log_name = name;
			sectors[n].index = (uint32_t)(index + n);
			sectors[n].nr = (uint32_t)some;
			memcpy(sectors[n].entries, entries, some * sizeof(*entries));
			sectors[n].sum = sector_sum(&sectors[n]);
			entries += some;
			nr -= some;
		}
		r = seal_disk_write_at(disk, sectors, n * sizeof(sectors[0]),
			at + index * SEAL_SECTOR_BYTES);
		index += n;
	}
	return r;
}

static int add_logged(struct seal_disk *disk, const struct seal_entry *entries, size_t nr)
{
	if (disk->nr_logged + nr > disk->max_logged) {
		const size_t max = 2 * (disk->nr_logged + nr) + 1024;
		struct seal_entry *more = realloc(disk->logged, max * sizeof(*more));

		if (!more)
			return -ENOMEM;
		disk->logged = more;
		disk->max_logged = max;
	}
	if (nr > 0)
		memcpy(disk->logged + disk->nr_logged, entries, nr * sizeof(*entries));
	disk->nr_logged += nr;
	return 0;
}

/* Up to the first sector that was not written whole: whoever waited for it has sent nothing. */
static int load_log(struct seal *seal)
{
	struct seal_disk *disk = seal->disk;
	const struct seal_head *head = disk->head;
	struct sector sector;
	int r = 0;

	for (uint64_t i = 0; i < head->log_bytes / SEAL_SECTOR_BYTES && r == 0; i++) {
		r = seal_disk_read_at(disk, &sector, sizeof(sector),
			head->log_at + i * SEAL_SECTOR_BYTES);
		if (r < 0 || sector.log_name != head->log_name || sector.index != i ||
			sector.nr > SECTOR_ENTRIES || sector.sum != sector_sum(&sector))
			break;
		for (unsigned k = 0; k < sector.nr && r == 0; k++) {
			const struct seal_entry *entry = &sector.entries[k];
			const uint64_t nr = is_zeros(entry) ? entry->nr : 1;

			if (entry->block >= seal->nr_blocks || nr > seal->nr_blocks - entry->block)
				r = -EUCLEAN;
		}
		if (r == 0)
			r = add_logged(disk, sector.entries, sector.nr);
	}
	return r;
}

/* Takes out what was logged before blocks were made zeros; the entries are in order. */
static void forget_before_zeros(struct seal_entry *entries, size_t nr,
	const struct seal_entry *zeros)
{
	size_t from = 0, to = nr;

	while (from < to) {
		const size_t middle = from + (to - from) / 2;

		if (entries[middle].block < zeros->block)
			from = middle + 1;
		else
			to = middle;
	}
	for (; from < nr && entries[from].block - zeros->block < zeros->nr; from++)
		if (counter_of(entries[from].nonce) < counter_of(zeros->nonce))
			entries[from].nonce = 0;
}

/*
 * Of what is logged, what the donor may have: rows that are newer than the table's, and than zeros,
 * which the rows of blocks that were zeros already do not tell.
 */
static size_t keep_newer(struct seal *seal, struct seal_entry *entries, size_t nr)
{
	size_t n = 0, kept = 0;

	pthread_mutex_lock(&seal->disk->lock);
	for (size_t i = 0; i < nr; i++)
		if (!is_zeros(&entries[i]) &&
			is_newer(&entries[i], nonce_of(seal, entries[i].block)))
			swap(&entries[i], &entries[n++]);
	pthread_mutex_unlock(&seal->disk->lock);
	if (n > 0)
		qsort(entries, n, sizeof(*entries), by_block_and_age);
	for (size_t i = n; i < nr; i++)
		if (is_zeros(&entries[i]))
			forget_before_zeros(entries, n, &entries[i]);
	for (size_t i = 0; i < n; i++)
		if (entries[i].nonce)
			entries[kept++] = entries[i];
	return kept;
}

/* Of a block whose writes failed again and again, its last rows. */
static size_t keep_last(struct seal_entry *entries, size_t nr)
{
	size_t n = 0;

	for (size_t i = 0; i < nr; i++)
		if (i + UNSETTLED_MAX >= nr || entries[i + UNSETTLED_MAX].block != entries[i].block)
			entries[n++] = entries[i];
	return n;
}

/* Where a log of so many bytes may be written while the present one is still needed. */
static void next_place(const struct seal_disk *disk, uint64_t bytes, uint64_t *ret_at,
	uint64_t *ret_bytes)
{
	const struct seal_head *head = disk->head;
	const uint64_t base = seal_logs_at(head->size_bytes),
			usual = seal_log_bytes_of(head->size_bytes);
	const uint64_t end = weft_max(head->log_at + head->log_bytes, disk->maybe_used);
	/* Behind the usual places long logs take turns too, or the file would grow for ever. */
	const uint64_t before = base + 2 * usual,
		       room = head->log_at > before ? head->log_at - before : 0;

	*ret_at = head->log_at >= base + usual ? base : base + usual;
	*ret_bytes = usual;
	if (2 * bytes <= usual && !disk->maybe_used)
		return;
	const bool fits = 2 * bytes <= room && !disk->maybe_used;
	*ret_at = fits ? before : weft_max(before, end);
	*ret_bytes = fits ? room : weft_max(usual, 4 * bytes);
}

/* A log that is longer than usual lies behind the others. */
static int make_room(const struct seal_disk *disk, uint64_t end)
{
	if (end <= seal_file_bytes_of(disk->head->size_bytes))
		return 0;
	int r = posix_fallocate(disk->fd, 0, (off_t)end);
	return r == 0 && fsync(disk->fd) < 0 ? -errno : -r;
}

/* The head that names the log is written last; if that fails, either log may be the one. */
static int name_log(struct seal *seal, uint64_t name, uint64_t at, uint64_t bytes)
{
	struct seal_disk *disk = seal->disk;
	struct seal_head *head = disk->head;

	pthread_mutex_lock(&disk->head_lock);
	const uint64_t was_name = head->log_name, was_at = head->log_at,
		       was_bytes = head->log_bytes;
	head->log_name = name;
	head->log_at = at;
	head->log_bytes = bytes;
	int r = seal_disk_put_head(seal);
	if (r < 0) {
		head->log_name = was_name;
		head->log_at = was_at;
		head->log_bytes = was_bytes;
		disk->maybe_used = weft_max(disk->maybe_used, at + bytes);
	} else {
		disk->maybe_used = 0;
	}
	pthread_mutex_unlock(&disk->head_lock);
	return r;
}

/* With these entries, and those that the present log is still needed for. */
static int begin_log(struct seal *seal, const struct seal_entry *entries, size_t nr)
{
	struct seal_disk *disk = seal->disk;
	const uint64_t name = weft_random_name();
	uint64_t at, bytes;
	int r;

	/* What is not newer than its row now is not when the table has that row, or a later one. */
	disk->nr_logged = keep_last(disk->logged, keep_newer(seal, disk->logged, disk->nr_logged));
	r = write_table(seal);
	if (r == 0)
		r = seal_disk_sync(disk);
	if (r < 0)
		return r;
	table_is_synced(disk);
	r = add_logged(disk, entries, nr);
	if (r < 0)
		return r;
	const uint64_t sectors = sectors_of(disk->nr_logged);
	next_place(disk, sectors * SEAL_SECTOR_BYTES, &at, &bytes);
	r = make_room(disk, at + bytes);
	if (r == 0)
		r = write_sectors(disk, name, at, 0, disk->logged, disk->nr_logged);
	if (r == 0)
		r = seal_disk_sync(disk);
	if (r == 0)
		r = name_log(seal, name, at, bytes);
	if (r < 0)
		return r;
	disk->sectors = sectors;
	disk->log_is_bad = false;
	return 0;
}

static int append(struct seal *seal, const struct seal_entry *entries, size_t nr)
{
	struct seal_disk *disk = seal->disk;
	const struct seal_head *head = disk->head;
	int r = write_sectors(disk, head->log_name, head->log_at, disk->sectors, entries, nr);

	disk->sectors += sectors_of(nr);
	if (r == 0)
		r = add_logged(disk, entries, nr);
	return r == 0 ? seal_disk_sync(disk) : r;
}

int seal_disk_write(struct seal *seal, bool table, const struct seal_entry *entries, size_t nr)
{
	struct seal_disk *disk = seal->disk;
	const bool fits = !disk->log_is_bad &&
		(disk->sectors + sectors_of(nr)) * SEAL_SECTOR_BYTES <= disk->head->log_bytes;
	int r = 0;

	if (nr > 0 && !fits) {
		r = begin_log(seal, entries, nr);
	} else {
		if (table)
			r = write_table(seal);
		if (r == 0)
			r = nr > 0 ? append(seal, entries, nr) : seal_disk_sync(disk);
		if (r == 0 && table)
			table_is_synced(disk);
	}
	/* After a failed write nobody knows what of the log is on disk. */
	disk->log_is_bad |= r < 0;
	return r;
}

int seal_disk_settle(struct seal *seal)
{
	struct seal_disk *disk = seal->disk;

	free(disk->doubts);
	disk->doubts = NULL;
	disk->nr_doubts = disk->nr_logged = 0;
	return begin_log(seal, NULL, 0);
}

/* ---- what was left ---- */

/* Zeros are certain: they need nothing of the donor. */
static void take_zeros(struct seal *seal)
{
	const struct seal_disk *disk = seal->disk;

	for (size_t i = 0; i < disk->nr_logged; i++) {
		const struct seal_entry *entry = &disk->logged[i];

		for (uint64_t k = 0; is_zeros(entry) && k < entry->nr; k++) {
			const uint64_t b = entry->block + k;

			if (!is_newer(entry, nonce_of(seal, b)))
				continue;
			atomic_store(&seal->rows[b].nonce, entry->nonce);
			set_bit(disk->changed, b / SEAL_PAGE_ROWS);
		}
	}
}

int seal_disk_load(struct seal *seal, struct weft_error *err)
{
	struct seal_disk *disk = seal->disk;
	const struct seal_head *head = disk->head;
	struct seal_file *file = seal->file;
	int r = seal_disk_make_bitmaps(disk, head->size_bytes);

	file->kind = head->kind;
	file->size_bytes = head->size_bytes;
	file->algorithm = head->algorithm;
	memcpy(file->volume, head->volume, sizeof(file->volume));
	memcpy(file->key, disk->key, sizeof(file->key));
	memcpy(file->salts, head->salts, sizeof(file->salts));
	atomic_store(&file->nr_salts, head->nr_salts);
	if (r == 0)
		r = load_log(seal);
	if (r == 0)
		r = load_table(seal);
	if (r == 0) {
		take_zeros(seal);
		disk->doubts = calloc(disk->nr_logged + 1, sizeof(*disk->doubts));
		r = disk->doubts ? 0 : -ENOMEM;
	}
	if (r == 0 && disk->nr_logged > 0) {
		memcpy(disk->doubts, disk->logged, disk->nr_logged * sizeof(*disk->doubts));
		disk->nr_doubts = keep_newer(seal, disk->doubts, disk->nr_logged);
	}
	if (r == -EUCLEAN)
		return weft_error_set(err, EUCLEAN,
			"%s is damaged: what it sealed cannot be read any more; begin empty "
			"contents with --new-contents",
			disk->path);
	return r < 0 ? weft_error_set(err, -r, "cannot read %s: %s", disk->path, strerror(-r)) : 0;
}
