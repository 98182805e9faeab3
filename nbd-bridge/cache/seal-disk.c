/* SPDX-License-Identifier: MIT */
/* The file of a seal: what is where, and what is believed of it; see seal-disk.h. */
#include "nbd-bridge/cache/seal-disk.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/key/key.h"
#include "fabric/key/memory.h"

enum {
	VERSION = 2,
	HEAD_BYTES = 40960,
	TABLE_AT = 2 * HEAD_BYTES,
	PAGE_BYTES = 512,
	PAGES_AT_ONCE = 128,
	SECTOR_BYTES = 512,
	SECTOR_ENTRIES = 15,
	LOG_MIN = 64 << 10,
	LOG_MAX = 4 << 20,
	UNSETTLED_MAX = 8, /* rows of a block whose writes all failed */
};

static const char magic[8] = "WEFTROWS";

struct seal_head {
	char magic[8];
	uint32_t version, kind, algorithm, nr_salts;
	uint64_t seq; /* the higher one counts */
	uint64_t size_bytes;
	uint64_t log_name, log_at, log_bytes; /* random; where it is */
	uint8_t volume[SEAL_VOLUME_BYTES], check[SEAL_KEY_BYTES];
	struct seal_identity identity;
	uint8_t salts[SEAL_SALTS_MAX][SEAL_SALT_BYTES];
	uint64_t sum;
};

_Static_assert(sizeof(struct seal_head) <= HEAD_BYTES, "a head has its place");

struct page {
	uint64_t sum, number; /* from 1 */
	struct {
		uint64_t nonce;
		uint8_t tag[SEAL_TAG_BYTES];
	} rows[SEAL_PAGE_ROWS];
	uint64_t reserved[2];
};

_Static_assert(sizeof(struct page) == PAGE_BYTES, "a page is a page");

struct sector {
	uint64_t sum, log_name;
	uint32_t index, nr;
	struct seal_entry entries[SECTOR_ENTRIES];
	uint64_t reserved;
};

_Static_assert(sizeof(struct sector) == SECTOR_BYTES, "a sector is a sector");

static uint64_t nr_pages_of(uint64_t size_bytes)
{
	const uint64_t nr_blocks = (size_bytes + SEAL_BLOCK - 1) / SEAL_BLOCK;

	return (nr_blocks + SEAL_PAGE_ROWS - 1) / SEAL_PAGE_ROWS;
}

/* Two of these lie behind the table: an eighth of it together, within bounds. */
static uint64_t log_bytes_of(uint64_t size_bytes)
{
	const uint64_t want = nr_pages_of(size_bytes) * PAGE_BYTES / 16;

	return weft_max(LOG_MIN, weft_min(LOG_MAX, want / SECTOR_BYTES * SECTOR_BYTES));
}

static uint64_t logs_at(uint64_t size_bytes)
{
	return TABLE_AT + nr_pages_of(size_bytes) * PAGE_BYTES;
}

static uint64_t file_bytes_of(uint64_t size_bytes)
{
	return logs_at(size_bytes) + 2 * log_bytes_of(size_bytes);
}

static int read_at(int fd, void *bytes, size_t len, uint64_t off)
{
	ssize_t n = pread(fd, bytes, len, (off_t)off);

	return n < 0 ? -errno : (size_t)n == len ? 0 : -ENODATA;
}

static int write_at(int fd, const void *bytes, size_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, bytes, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		bytes = (const uint8_t *)bytes + n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

static int sync_file(const struct seal_disk *disk)
{
	return fdatasync(disk->fd) < 0 ? -errno : 0;
}

/* ---- the heads ---- */

static uint64_t head_sum(const struct seal_head *head)
{
	return XXH3_64bits(head, offsetof(struct seal_head, sum));
}

static bool has_magic(const struct seal_head *head)
{
	return memcmp(head->magic, magic, sizeof(magic)) == 0;
}

/* Nothing in the file is believed before this check. */
static bool is_sound(const struct seal_head *head, uint64_t file_len)
{
	const struct seal_identity *id = &head->identity;

	return has_magic(head) && head->version == VERSION && head->sum == head_sum(head) &&
		(head->kind == SEAL_VERIFY || head->kind == SEAL_ENCRYPT) &&
		(head->algorithm == SEAL_AES_256_GCM ||
			head->algorithm == SEAL_CHACHA20_POLY1305) &&
		head->nr_salts > 0 && head->nr_salts <= SEAL_SALTS_MAX && head->size_bytes > 0 &&
		head->size_bytes <= INT64_MAX / 2 && file_bytes_of(head->size_bytes) <= file_len &&
		head->log_at >= logs_at(head->size_bytes) && head->log_at <= file_len &&
		head->log_bytes >= SECTOR_BYTES && head->log_bytes <= file_len - head->log_at &&
		head->log_bytes % SECTOR_BYTES == 0 && id->nr_donors >= 1 &&
		id->nr_donors <= SEAL_DONORS && memchr(id->uri, '\0', sizeof(id->uri)) &&
		memchr(id->boot, '\0', sizeof(id->boot));
}

/* The newer one of those that are whole. */
static int load_head(struct seal_disk *disk, struct weft_error *err)
{
	WEFT_CLEANUP_FREE struct seal_head *one = malloc(sizeof(*one));
	uint32_t other_version = 0;
	bool any = false;
	struct stat st;

	if (!one || fstat(disk->fd, &st) < 0)
		return weft_error_set(err, one ? errno : ENOMEM, "cannot read %s: %s", disk->path,
			strerror(one ? errno : ENOMEM));
	for (unsigned i = 0; i < 2; i++) {
		int r = read_at(disk->fd, one, sizeof(*one), i * HEAD_BYTES);

		if (r < 0 && r != -ENODATA)
			return weft_error_set(err, -r, "cannot read %s: %s", disk->path,
				strerror(-r));
		if (r == 0 && has_magic(one) && one->version != VERSION)
			other_version = one->version;
		if (r < 0 || !is_sound(one, (uint64_t)st.st_size) ||
			(any && one->seq < disk->head->seq))
			continue;
		*disk->head = *one;
		any = true;
	}
	if (!any && other_version)
		return weft_error_set(err, EPROTONOSUPPORT,
			"%s is of another version of weft (its form is %u, this one's %d): attach "
			"with that, or begin empty contents with --new-contents",
			disk->path, other_version, VERSION);
	if (!any)
		return weft_error_set(err, EUCLEAN,
			"%s is damaged, or something else: what it sealed cannot be read any more; "
			"begin empty contents with --new-contents",
			disk->path);
	return 0;
}

static int check_head(struct seal_disk *disk, enum seal_kind kind, struct weft_error *err)
{
	const struct seal_head *head = disk->head;
	uint8_t check[SEAL_KEY_BYTES];

	if (head->kind != kind)
		return weft_error_set(err, EINVAL,
			"%s seals contents of --%s, which cannot be read with --%s", disk->path,
			seal_kind_name(head->kind), seal_kind_name(kind));
	if (seal_derive_check(disk->key, head->volume, check) < 0)
		return weft_error_set(err, EIO, "cannot seal: GnuTLS derives no key");
	if (!weft_secret_equal(check, head->check, sizeof(check)))
		return weft_error_set(err, EKEYREJECTED,
			"what %s seals has another key: it cannot be read with this one",
			disk->path);
	disk->identity = head->identity;
	disk->noted = true;
	return 0;
}

static bool is_in_place(int fd, const char *path)
{
	struct stat ours, there;

	return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino &&
		ours.st_dev == there.st_dev;
}

static int open_and_lock(struct seal_disk *disk, struct weft_error *err)
{
	disk->fd = open(disk->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (disk->fd < 0 && errno == ENOENT)
		return 0;
	if (disk->fd < 0)
		return weft_error_set(err, errno, "cannot open %s: %s", disk->path,
			strerror(errno));
	/* A file that was replaced before it was locked is nobody's. */
	if (flock(disk->fd, LOCK_EX | LOCK_NB) < 0 || !is_in_place(disk->fd, disk->path))
		return weft_error_set(err, EBUSY,
			"%s is of another attachment, which weft status shows", disk->path);
	return 0;
}

int seal_disk_open(const char *path, const uint8_t key[SEAL_KEY_BYTES], enum seal_kind kind,
	bool anew, struct seal_disk **ret, struct weft_error *err)
{
	struct seal_disk *disk = calloc(1, sizeof(*disk));

	if (!disk)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	disk->fd = -1;
	pthread_mutex_init(&disk->head_lock, NULL);
	pthread_mutex_init(&disk->lock, NULL);
	weft_cond_init(&disk->wanted);
	weft_cond_init(&disk->idle);
	disk->path = strdup(path);
	disk->head = calloc(1, sizeof(*disk->head));
	disk->key = weft_secret_alloc(SEAL_KEY_BYTES);
	int r = disk->path && disk->head && disk->key
		? 0
		: weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	if (r == 0) {
		memcpy(disk->key, key, SEAL_KEY_BYTES);
		r = open_and_lock(disk, err);
	}
	if (r == 0 && !anew && disk->fd < 0)
		r = weft_error_set(err, ENOENT,
			"%s is not there: without it nobody can read what was sealed; begin empty "
			"contents with --new-contents",
			path);
	if (r == 0 && !anew)
		r = load_head(disk, err);
	if (r == 0 && !anew)
		r = check_head(disk, kind, err);
	if (r < 0) {
		seal_disk_close(disk);
		return r;
	}
	if (anew)
		memset(disk->head, 0, sizeof(*disk->head));
	*ret = disk;
	return 0;
}

static void forget_contents(struct seal_disk *disk)
{
	free(disk->unsynced);
	free(disk->changed);
	free(disk->logged);
	free(disk->doubts);
	disk->unsynced = disk->changed = NULL;
	disk->logged = disk->doubts = NULL;
	disk->nr_logged = disk->max_logged = disk->nr_doubts = 0;
	disk->sectors = disk->maybe_used = 0;
	disk->log_is_bad = false;
}

void seal_disk_close(struct seal_disk *disk)
{
	if (!disk)
		return;
	forget_contents(disk);
	weft_secret_free(disk->key, SEAL_KEY_BYTES);
	weft_close_fd(disk->fd);
	free(disk->queue);
	free(disk->spare);
	free(disk->head);
	free(disk->path);
	pthread_mutex_destroy(&disk->head_lock);
	pthread_mutex_destroy(&disk->lock);
	pthread_cond_destroy(&disk->wanted);
	pthread_cond_destroy(&disk->idle);
	free(disk);
}

bool seal_disk_has_begun(const struct seal_disk *disk)
{
	return disk->head->size_bytes > 0;
}

uint64_t seal_disk_size_bytes(const struct seal_disk *disk)
{
	return disk->head->size_bytes;
}

/* Under the head's lock. */
static int write_head(struct seal *seal)
{
	struct seal_disk *disk = seal->disk;
	struct seal_head *head = disk->head;

	head->nr_salts = atomic_load(&seal->file->nr_salts);
	memcpy(head->salts, seal->file->salts, sizeof(head->salts));
	head->identity = disk->identity;
	head->seq++;
	head->sum = head_sum(head);
	int r = write_at(disk->fd, head, sizeof(*head), head->seq % 2 * HEAD_BYTES);
	if (r == 0)
		r = sync_file(disk);
	/* The other head stays as it is until this place has a whole one. */
	if (r < 0)
		head->seq--;
	disk->noted |= r == 0;
	return r;
}

int seal_disk_write_head(struct seal *seal)
{
	pthread_mutex_lock(&seal->disk->head_lock);
	int r = write_head(seal);
	pthread_mutex_unlock(&seal->disk->head_lock);
	return r;
}

int seal_disk_note(struct seal *seal, const struct seal_identity *identity, bool now)
{
	struct seal_disk *disk = seal->disk;
	int r = 0;

	pthread_mutex_lock(&disk->head_lock);
	if (memcmp(identity, &disk->identity, sizeof(*identity)) != 0) {
		disk->identity = *identity;
		disk->noted = false;
	}
	if (now && !disk->noted)
		r = write_head(seal);
	pthread_mutex_unlock(&disk->head_lock);
	return r;
}

/* ---- a new file ---- */

static int make_bitmaps(struct seal_disk *disk, uint64_t size_bytes)
{
	forget_contents(disk);
	disk->nr_pages = nr_pages_of(size_bytes);
	const size_t words = (size_t)(disk->nr_pages + 63) / 64;
	disk->unsynced = calloc(words, sizeof(*disk->unsynced));
	disk->changed = calloc(words, sizeof(*disk->changed));
	return disk->unsynced && disk->changed ? 0 : -ENOMEM;
}

static int sync_directory(const char *path)
{
	WEFT_CLEANUP_FREE char *copy = strdup(path);
	WEFT_CLEANUP_CLOSE int fd =
		copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return !copy ? -ENOMEM : fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int fill_new(struct seal *seal, int fd)
{
	const struct seal_file *file = seal->file;
	struct seal_disk *disk = seal->disk;
	struct seal_head *head = disk->head;
	int r = posix_fallocate(fd, 0, (off_t)file_bytes_of(file->size_bytes));

	/* All room is taken now: later nobody could be told. */
	if (r != 0)
		return -r;
	memset(head, 0, sizeof(*head));
	memcpy(head->magic, magic, sizeof(magic));
	head->version = VERSION;
	head->kind = file->kind;
	head->algorithm = file->algorithm;
	head->size_bytes = file->size_bytes;
	memcpy(head->volume, file->volume, sizeof(head->volume));
	head->log_name = weft_random_name();
	head->log_at = logs_at(file->size_bytes);
	head->log_bytes = log_bytes_of(file->size_bytes);
	r = seal_derive_check(disk->key, head->volume, head->check);
	if (r == 0)
		r = make_bitmaps(disk, file->size_bytes);
	weft_close_fd(disk->fd);
	disk->fd = fd;
	return r == 0 ? write_head(seal) : r;
}

/* A new file's descriptor, empty and locked; or -1, and why not. */
static int open_new(const char *path, int *ret_why)
{
	int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	struct stat st;

	*ret_why = 0;
	if (fd < 0) {
		*ret_why = -errno;
		return -1;
	}
	/* Of another that begins at once; one that a crash left behind is nobody's. */
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 || !is_in_place(fd, path))
		*ret_why = -EBUSY;
	else if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1)
		*ret_why = -EEXIST;
	else if (ftruncate(fd, 0) < 0)
		*ret_why = -errno;
	if (*ret_why == 0)
		return fd;
	close(fd);
	return -1;
}

/* replace: the file that is there is ours, and locked. */
static int put_in_place(const char *from, const char *to, bool replace)
{
	int r = renameat2(AT_FDCWD, from, AT_FDCWD, to, replace ? 0 : RENAME_NOREPLACE);

	/* Not every file system knows the flag; link(2) does not replace either. */
	if (r < 0 && errno == EINVAL && !replace)
		r = link(from, to) < 0 ? -1 : unlink(from);
	if (r < 0)
		return errno == EEXIST ? -EBUSY : -errno;
	return sync_directory(to);
}

int seal_disk_create(struct seal *seal, struct weft_error *err)
{
	struct seal_disk *disk = seal->disk;
	const int old = disk->fd;
	WEFT_CLEANUP_FREE char *path = NULL;
	int fd, r;

	if (asprintf(&path, "%s.new", disk->path) < 0)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	fd = open_new(path, &r);
	pthread_mutex_lock(&disk->head_lock);
	if (r == 0) {
		/* The old file stays locked until it is replaced. */
		disk->fd = -1;
		r = fill_new(seal, fd);
	}
	if (r == 0)
		r = put_in_place(path, disk->path, old >= 0);
	if (r < 0)
		memset(disk->head, 0, sizeof(*disk->head));
	pthread_mutex_unlock(&disk->head_lock);
	if (r == 0) {
		weft_close_fd(old);
		return 0;
	}
	if (fd >= 0) {
		/* The lock ends with close(): until then the name is ours. */
		if (is_in_place(fd, path))
			unlink(path);
		close(fd);
	}
	disk->fd = old;
	return weft_error_set(err, -r, "cannot make %s of %llu bytes: %s", disk->path,
		(unsigned long long)file_bytes_of(seal->file->size_bytes), strerror(-r));
}

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
		r = write_at(disk->fd, pages, n * sizeof(*pages), TABLE_AT + number * PAGE_BYTES);
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
		off_t data = lseek(disk->fd, (off_t)(TABLE_AT + at * PAGE_BYTES), SEEK_DATA);
		if (data > 0)
			at = weft_max(at, ((uint64_t)data - TABLE_AT) / PAGE_BYTES);
		if ((data < 0 && errno == ENXIO) || at >= disk->nr_pages)
			break;
		const uint64_t nr = weft_min(PAGES_AT_ONCE, disk->nr_pages - at);
		r = read_at(disk->fd, pages, nr * PAGE_BYTES, TABLE_AT + at * PAGE_BYTES);
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
		r = write_at(disk->fd, sectors, n * sizeof(sectors[0]), at + index * SECTOR_BYTES);
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

	for (uint64_t i = 0; i < head->log_bytes / SECTOR_BYTES && r == 0; i++) {
		r = read_at(disk->fd, &sector, sizeof(sector), head->log_at + i * SECTOR_BYTES);
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
	const uint64_t base = logs_at(head->size_bytes), usual = log_bytes_of(head->size_bytes);
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
	if (end <= file_bytes_of(disk->head->size_bytes))
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
	int r = write_head(seal);
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
		r = sync_file(disk);
	if (r < 0)
		return r;
	table_is_synced(disk);
	r = add_logged(disk, entries, nr);
	if (r < 0)
		return r;
	const uint64_t sectors = sectors_of(disk->nr_logged);
	next_place(disk, sectors * SECTOR_BYTES, &at, &bytes);
	r = make_room(disk, at + bytes);
	if (r == 0)
		r = write_sectors(disk, name, at, 0, disk->logged, disk->nr_logged);
	if (r == 0)
		r = sync_file(disk);
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
	return r == 0 ? sync_file(disk) : r;
}

int seal_disk_write(struct seal *seal, bool table, const struct seal_entry *entries, size_t nr)
{
	struct seal_disk *disk = seal->disk;
	const bool fits = !disk->log_is_bad &&
		(disk->sectors + sectors_of(nr)) * SECTOR_BYTES <= disk->head->log_bytes;
	int r = 0;

	if (nr > 0 && !fits) {
		r = begin_log(seal, entries, nr);
	} else {
		if (table)
			r = write_table(seal);
		if (r == 0)
			r = nr > 0 ? append(seal, entries, nr) : sync_file(disk);
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
	int r = make_bitmaps(disk, head->size_bytes);

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
