/* SPDX-License-Identifier: MIT */
/* The file of a seal: its heads, and how a file begins; see seal-disk.h. */
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
#include "nbd-bridge/cache/seal-layout.h"

enum {
	VERSION = 2,
};

static const char magic[8] = "WEFTROWS";

_Static_assert(sizeof(struct seal_head) <= SEAL_HEAD_BYTES, "a head has its place");

int seal_disk_read_at(const struct seal_disk *disk, void *bytes, size_t len, uint64_t off)
{
	ssize_t n = pread(disk->fd, bytes, len, (off_t)off);

	return n < 0 ? -errno : (size_t)n == len ? 0 : -ENODATA;
}

int seal_disk_write_at(const struct seal_disk *disk, const void *bytes, size_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t n = pwrite(disk->fd, bytes, len, (off_t)off);

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

int seal_disk_sync(const struct seal_disk *disk)
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
		head->size_bytes <= INT64_MAX / 2 &&
		seal_file_bytes_of(head->size_bytes) <= file_len &&
		head->log_at >= seal_logs_at(head->size_bytes) && head->log_at <= file_len &&
		head->log_bytes >= SEAL_SECTOR_BYTES &&
		head->log_bytes <= file_len - head->log_at &&
		head->log_bytes % SEAL_SECTOR_BYTES == 0 && id->nr_donors >= 1 &&
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
		int r = seal_disk_read_at(disk, one, sizeof(*one), i * SEAL_HEAD_BYTES);

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

int seal_disk_put_head(struct seal *seal)
{
	struct seal_disk *disk = seal->disk;
	struct seal_head *head = disk->head;

	head->nr_salts = atomic_load(&seal->file->nr_salts);
	memcpy(head->salts, seal->file->salts, sizeof(head->salts));
	head->identity = disk->identity;
	head->seq++;
	head->sum = head_sum(head);
	int r = seal_disk_write_at(disk, head, sizeof(*head), head->seq % 2 * SEAL_HEAD_BYTES);
	if (r == 0)
		r = seal_disk_sync(disk);
	/* The other head stays as it is until this place has a whole one. */
	if (r < 0)
		head->seq--;
	disk->noted |= r == 0;
	return r;
}

int seal_disk_write_head(struct seal *seal)
{
	pthread_mutex_lock(&seal->disk->head_lock);
	int r = seal_disk_put_head(seal);
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
		r = seal_disk_put_head(seal);
	pthread_mutex_unlock(&disk->head_lock);
	return r;
}

/* ---- a new file ---- */

int seal_disk_make_bitmaps(struct seal_disk *disk, uint64_t size_bytes)
{
	forget_contents(disk);
	disk->nr_pages = seal_nr_pages_of(size_bytes);
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
	int r = posix_fallocate(fd, 0, (off_t)seal_file_bytes_of(file->size_bytes));

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
	head->log_at = seal_logs_at(file->size_bytes);
	head->log_bytes = seal_log_bytes_of(file->size_bytes);
	r = seal_derive_check(disk->key, head->volume, head->check);
	if (r == 0)
		r = seal_disk_make_bitmaps(disk, file->size_bytes);
	weft_close_fd(disk->fd);
	disk->fd = fd;
	return r == 0 ? seal_disk_put_head(seal) : r;
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
		(unsigned long long)seal_file_bytes_of(seal->file->size_bytes), strerror(-r));
}
