/* SPDX-License-Identifier: MIT */
/*
 * The parts of a seal that outlive the process: the key, the salts, the rows; see seal.h.
 *
 * They are memory that outlives it, or a copy of what a file has (seal-disk.h), in the same form: a
 * header, the salts, the rows, all of it for the machine that made it.  A process that
 * is killed leaves all that it stored.  So a salt is stored before it is counted, and `begun`,
 * which says that the contents have begun, comes last.
 */
#include "nbd-bridge/cache/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/memory.h"
#include "nbd-bridge/cache/seal-disk.h"

enum { VERSION = 1, HEAD_BYTES = 4096 };

static const char magic[8] = "WEFTSEAL";

enum seal_kind seal_kind_of(const struct seal *seal)
{
	return seal->kind;
}

enum seal_algorithm seal_algorithm_of(const struct seal *seal)
{
	return seal->context.algorithm;
}

/* ---- the file ---- */

static size_t file_bytes(uint64_t size_bytes)
{
	const uint64_t nr_blocks = (size_bytes + SEAL_BLOCK - 1) / SEAL_BLOCK;

	return sizeof(struct seal_file) + nr_blocks * sizeof(struct seal_row);
}

static void unmap(struct seal *seal)
{
	if (seal->file)
		munmap(seal->file, seal->file_len);
	seal->file = NULL;
}

static int map(struct seal *seal, size_t len)
{
	void *p = seal->disk ? mmap(NULL, len, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
			     : mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, seal->fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	madvise(p, len, MADV_DONTDUMP);
	/* As far as the process may: what cannot be locked may be swapped out. */
	mlock(p, HEAD_BYTES);
	seal->file = p;
	seal->file_len = len;
	return 0;
}

static void set_size(struct seal *seal, uint64_t size_bytes)
{
	seal->size_bytes = size_bytes;
	seal->nr_blocks = (size_bytes + SEAL_BLOCK - 1) / SEAL_BLOCK;
	seal->rows = seal->file->rows;
}

/* Nothing in the file is believed before this check. */
static bool is_sound(const struct seal *seal)
{
	const struct seal_file *file = seal->file;
	const uint32_t nr_salts = atomic_load(&file->nr_salts);

	return memcmp(file->magic, magic, sizeof(magic)) == 0 && file->version == VERSION &&
		file->kind == seal->kind && file->size_bytes > 0 &&
		file_bytes(file->size_bytes) == seal->file_len && nr_salts > 0 &&
		nr_salts <= SEAL_SALTS_MAX &&
		(file->algorithm == SEAL_AES_256_GCM || file->algorithm == SEAL_CHACHA20_POLY1305);
}

static bool has_begun(const struct seal *seal)
{
	return seal->file && atomic_load(&seal->file->begun);
}

/* The leftovers of a process that was killed while it began count as nothing. */
static int load(struct seal *seal, struct weft_error *err)
{
	struct stat st;
	int r;

	if (fstat(seal->fd, &st) < 0)
		return weft_error_set(err, errno, "cannot look at what seals the contents: %s",
			strerror(errno));
	if ((uint64_t)st.st_size <= sizeof(struct seal_file))
		return 0;
	r = map(seal, (size_t)st.st_size);
	if (r < 0)
		return weft_error_set(err, -r, "cannot map what seals the contents: %s",
			strerror(-r));
	if (has_begun(seal) && !is_sound(seal))
		return weft_error_set(err, EINVAL,
			"what sealed the contents is not there any more, or was of another kind");
	return 0;
}

/* So that whatever is wrong with the file is known before anybody is asked for a grant. */
static int load_file(struct seal *seal, struct weft_error *err)
{
	const uint64_t size_bytes = seal_disk_size_bytes(seal->disk);
	int r = map(seal, file_bytes(size_bytes));

	if (r < 0)
		return weft_error_set(err, -r, "cannot make %zu bytes of memory for %s: %s",
			file_bytes(size_bytes), seal->disk->path, strerror(-r));
	set_size(seal, size_bytes);
	r = seal_disk_load(seal, err);
	atomic_store(&seal->file->begun, r == 0);
	return r;
}

int seal_open(const char *path, const uint8_t key[SEAL_KEY_BYTES], enum seal_kind kind, bool anew,
	struct seal **ret, struct weft_error *err)
{
	struct seal *seal = calloc(1, sizeof(*seal));

	if (!seal)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	seal->kind = seal->context.kind = kind;
	seal->fd = -1;
	int r = seal_disk_open(path, key, kind, anew, &seal->disk, err);
	if (r == 0 && seal_disk_has_begun(seal->disk))
		r = load_file(seal, err);
	if (r < 0) {
		seal_free(seal);
		return r;
	}
	*ret = seal;
	return 0;
}

const char *seal_path(const struct seal *seal)
{
	return seal->disk ? seal->disk->path : NULL;
}

const struct seal_identity *seal_identity(const struct seal *seal)
{
	return seal->disk && seal_disk_has_begun(seal->disk) ? &seal->disk->identity : NULL;
}

int seal_note(struct seal *seal, const struct seal_identity *identity, struct weft_error *err)
{
	/* Without contents the file is another's still, or there is none. */
	int r = seal->disk ? seal_disk_note(seal, identity, has_begun(seal)) : 0;

	return r < 0 ? weft_error_set(err, -r, "cannot write %s: %s", seal->disk->path,
			       strerror(-r))
		     : 0;
}

int seal_new(int fd, enum seal_kind kind, struct seal **ret, struct weft_error *err)
{
	struct seal *seal = calloc(1, sizeof(*seal));

	if (!seal)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	seal->kind = seal->context.kind = kind;
	seal->fd = dup(fd);
	int r = seal->fd < 0 ? weft_error_set(err, errno, "cannot seal: %s", strerror(errno))
			     : load(seal, err);
	if (r < 0) {
		seal_free(seal);
		return r;
	}
	*ret = seal;
	return 0;
}

static void forget_keys(struct seal *seal)
{
	weft_secret_free(seal->keys, seal->nr_salts * SEAL_KEY_BYTES);
	seal->keys = NULL;
	seal->nr_salts = 0;
}

void seal_free(struct seal *seal)
{
	if (!seal)
		return;
	if (seal->disk)
		seal_log_stop(seal);
	forget_keys(seal);
	if (seal->file && seal->disk)
		explicit_bzero(seal->file->key, sizeof(seal->file->key));
	unmap(seal);
	weft_close_fd(seal->fd);
	seal_disk_close(seal->disk);
	free(seal);
}

void seal_end(struct seal *seal)
{
	if (!seal->file || seal->disk)
		return;
	atomic_store(&seal->file->begun, 0);
	explicit_bzero(seal->file->key, sizeof(seal->file->key));
}

void seal_lock_key(int fd)
{
	void *p = mmap(NULL, HEAD_BYTES, PROT_READ, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return;
	madvise(p, HEAD_BYTES, MADV_DONTDUMP);
	mlock(p, HEAD_BYTES);
}

/* ---- contents ---- */

/* Each process's key, of which this is ours. */
static int derive_keys(struct seal *seal, unsigned own_salt, struct weft_error *err)
{
	const struct seal_file *file = seal->file;
	const unsigned nr = atomic_load(&file->nr_salts);
	int r = 0;

	forget_keys(seal);
	seal->context.algorithm = (enum seal_algorithm)file->algorithm;
	memcpy(seal->context.volume, file->volume, sizeof(file->volume));
	seal->keys = weft_secret_alloc(nr * SEAL_KEY_BYTES);
	if (!seal->keys)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	seal->nr_salts = nr;
	seal->own_salt = own_salt;
	for (unsigned i = 0; i < nr && r == 0; i++)
		r = seal_derive(&seal->context, file->key, file->salts[i], seal->keys[i]);
	if (r < 0) {
		forget_keys(seal);
		return weft_error_set(err, -r, "cannot seal: GnuTLS derives no key");
	}
	atomic_store(&seal->counter, 0);
	set_size(seal, file->size_bytes);
	return 0;
}

/* Of contents that are about to begin, in a file without any. */
static int draw(struct seal *seal, uint64_t size_bytes, struct weft_error *err)
{
	struct seal_file *file = seal->file;

	memcpy(file->magic, magic, sizeof(magic));
	file->version = VERSION;
	file->kind = seal->kind;
	file->size_bytes = size_bytes;
	file->algorithm = seal_fastest(seal->kind);
	weft_random(file->volume, sizeof(file->volume));
	if (seal->disk)
		memcpy(file->key, seal->disk->key, sizeof(file->key));
	else
		weft_random(file->key, sizeof(file->key));
	weft_random(file->salts[0], SEAL_SALT_BYTES);
	atomic_store(&file->nr_salts, 1);
	atomic_store(&file->nr_bad, 0);
	int r = derive_keys(seal, 0, err);
	if (r == 0 && seal->disk)
		r = seal_disk_create(seal, err);
	if (r == 0)
		atomic_store(&file->begun, 1);
	else
		forget_keys(seal);
	return r;
}

static int begin(struct seal *seal, uint64_t size_bytes, struct weft_error *err)
{
	const size_t len = file_bytes(size_bytes);

	unmap(seal);
	/* After this the old contents are zeros. */
	int r = !seal->disk &&
			(ftruncate(seal->fd, 0) < 0 || ftruncate(seal->fd, (off_t)len) < 0)
		? -errno
		: map(seal, len);
	if (r < 0)
		return weft_error_set(err, -r,
			"cannot make %zu bytes of memory for what seals the contents: %s", len,
			strerror(-r));
	return draw(seal, size_bytes, err);
}

static void note_salt(bool named[SEAL_SALTS_MAX], uint64_t nonce)
{
	const uint64_t salt = (nonce & ~(SEAL_KNOWN_BAD | SEAL_ZEROS)) >> SEAL_COUNTER_BITS;

	if (nonce && salt < SEAL_SALTS_MAX)
		named[salt] = true;
}

/*
 * The number of a salt to draw: a new one, or one that no row names any more.  SEAL_SALTS_MAX:
 * there is none.
 */
static unsigned free_salt(const struct seal *seal)
{
	const struct seal_file *file = seal->file;
	const struct seal_disk *disk = seal->disk;
	const uint64_t nr_blocks = (file->size_bytes + SEAL_BLOCK - 1) / SEAL_BLOCK;
	const unsigned nr = atomic_load(&file->nr_salts);
	bool named[SEAL_SALTS_MAX] = {0};
	unsigned i = 0;

	if (nr < SEAL_SALTS_MAX)
		return nr;
	for (uint64_t block = 0; block < nr_blocks; block++) {
		const uint64_t nonce = atomic_load_explicit(&file->rows[block].nonce,
			memory_order_relaxed);

		note_salt(named, nonce);
	}
	for (size_t n = 0; disk && n < disk->nr_doubts; n++)
		note_salt(named, disk->doubts[n].nonce);
	while (i < SEAL_SALTS_MAX && named[i])
		i++;
	return i;
}

int seal_start(struct seal *seal, uint64_t size_bytes, struct weft_error *err)
{
	struct seal_file *file = seal->file;

	if (!has_begun(seal))
		return begin(seal, size_bytes, err);
	if (file->size_bytes != size_bytes)
		return weft_error_set(err, ESTALE,
			"the region has another size than when its contents were sealed");
	/* A process never counts from the beginning again. */
	if (seal->keys)
		return 0;
	const unsigned own = free_salt(seal);
	if (own == SEAL_SALTS_MAX)
		return weft_error_set(err, ENOSPC,
			"these contents have blocks of %d bridges, and there may be no more; end "
			"them with weft detach, and attach anew",
			SEAL_SALTS_MAX);
	weft_random(file->salts[own], SEAL_SALT_BYTES);
	atomic_store(&file->nr_salts, weft_max(own + 1, atomic_load(&file->nr_salts)));
	/* On disk before anything is sealed under it. */
	int r = seal->disk ? seal_disk_write_head(seal) : 0;
	if (r < 0)
		return weft_error_set(err, -r, "cannot write %s: %s", seal->disk->path,
			strerror(-r));
	return derive_keys(seal, own, err);
}

/* A new file takes the place of the one that there is, and remembers nothing yet. */
static int start_file_anew(struct seal *seal, struct weft_error *err)
{
	struct seal_disk *disk = seal->disk;

	seal_log_stop(seal);
	disk->nr_queued = 0;
	atomic_store(&disk->nr_done, disk->nr_asked);
	for (unsigned i = 0; i < SEAL_DONORS; i++)
		disk->identity.donors[i].epoch = disk->identity.donors[i].granted =
			disk->identity.donors[i].wrote = 0;
	int r = begin(seal, seal->size_bytes, err);
	return r == 0 ? seal_log_start(seal, err) : r;
}

int seal_start_anew(struct seal *seal, struct weft_error *err)
{
	const size_t rows_at = offsetof(struct seal_file, rows);
	const uint64_t size_bytes = seal->size_bytes;
	struct seal_file *file = seal->file;

	if (seal->disk)
		return start_file_anew(seal, err);
	atomic_store(&file->begun, 0);
	if (fallocate(seal->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)rows_at,
		    (off_t)(seal->file_len - rows_at)) < 0)
		memset(file->rows, 0, seal->nr_blocks * sizeof(file->rows[0]));
	return draw(seal, size_bytes, err);
}

/* ---- rows ---- */

bool seal_is_zero(const struct seal *seal, uint64_t block)
{
	return seal_row_is_zeros(&seal->rows[block]);
}

void seal_make_zero(struct seal *seal, uint64_t first, uint64_t nr)
{
	if (seal->disk) {
		seal_log_zeros(seal, first, nr);
		return;
	}
	/* A row that is zero already may lie on a page that was never touched. */
	for (uint64_t i = first; i < first + nr; i++)
		if (!seal_is_zero(seal, i))
			atomic_store_explicit(&seal->rows[i].nonce, 0, memory_order_relaxed);
}

void seal_note_bad(struct seal *seal, uint64_t block)
{
	struct seal_row *row = &seal->rows[block];

	if (seal_is_zero(seal, block) ||
		(atomic_fetch_or(&row->nonce, SEAL_KNOWN_BAD) & SEAL_KNOWN_BAD))
		return;
	atomic_fetch_add(&seal->file->nr_bad, 1);
	const uint64_t n = atomic_fetch_add(&seal->nr_told, 1);
	if (n < SEAL_TOLD_MAX)
		atomic_store(&seal->bad[n], block + 1);
}

uint64_t seal_nr_bad(const struct seal *seal)
{
	return seal->file ? atomic_load(&seal->file->nr_bad) : 0;
}

bool seal_next_bad(const struct seal *seal, uint64_t *at, uint64_t *ret_block)
{
	uint64_t told = *at < SEAL_TOLD_MAX ? atomic_load(&seal->bad[*at]) : 0;

	if (told == 0)
		return false;
	*ret_block = told - 1;
	(*at)++;
	return true;
}
