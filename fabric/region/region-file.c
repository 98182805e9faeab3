/*
 * Regions whose content is a file's or a block device's, through the page cache.
 *
 * The epoch's mark is an extended attribute.  From before the first write it says "open", durably; only a
 * clean end replaces it by "clean" with the file's size and time, after the data is durable.  So whoever
 * finds "clean", and size and time as they are, knows that nothing happened since.
 *
 * Threads: as region.h says; reads and writes share nothing but atomics.
 */
#include "fabric/region/region.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/region/region-private.h"
#include "fabric/base/util.h"

#define MARK_NAME "user.weft.epoch"

static bool fits(const struct region_mark *mark, const struct stat *st)
{
	return mark->size_bytes == (int64_t)st->st_size && mark->mtime_s == (int64_t)st->st_mtim.tv_sec &&
		mark->mtime_ns == (uint32_t)st->st_mtim.tv_nsec;
}

static uint64_t sum_of(const char *text, ssize_t len)
{
	return len < 0 ? 0 : weft_max(XXH3_64bits(text, (size_t)len), 1);
}

/* Whether the mark is the one that we know.  -EUCLEAN: a copy was put back in the file's place while it was open, with its mark. */
static int check_mark(const struct weft_region *region)
{
	char text[REGION_MARK_MAX];
	ssize_t n = fgetxattr(region->fd, MARK_NAME, text, sizeof(text));

	if (n < 0 && errno != ENODATA && errno != ENOTSUP)
		return -errno;
	return sum_of(text, n) == region->note->mark_sum ? 0 : -EUCLEAN;
}

/* 0 once the mark is durable; -ENOTSUP where there are no such attributes. */
static int write_mark(struct weft_region *region, bool clean)
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
	return fsync(region->fd) < 0 ? -errno : 0;
}

/*
 * What the mark says of the file as it was opened.  A clean one that fits: whose contents these are, and who may go on with them.  Any
 * other: who may still remember the contents that are gone.
 */
static int take_mark(struct weft_region *region, const struct stat *st)
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
	region->was_clean = mark->clean && fits(mark, st);
	/* Whoever changed the file since: a part of a device is no other one for it, unless somebody says so. */
	region->stripe = note->stripe = mark->stripe;
	if (region->read_only) {
		/* Nobody can be noted in it; but whoever serves it to be written changes it. */
		if (region->was_clean)
			region->epoch = weft_max(XXH3_64bits(text, (size_t)n), 1);
		return 0;
	}
	/* Not closed, or changed by another program since: whoever held it may still answer from what it remembers. */
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

/*
 * Opens without side effects whatever it is, makes sure that it is a regular file, and opens that; for reading if that is all
 * that may be done with it, or was asked for (*read_only).
 */
static int open_regular(int dirfd, const char *path, bool beneath, bool *read_only)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	char again[64];
	struct stat st;
	WEFT_CLEANUP_CLOSE int probe = beneath ? (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how))
					       : openat(dirfd, path, O_PATH | O_CLOEXEC);

	if (probe < 0)
		return -errno;
	if (fstat(probe, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode) && (beneath || !S_ISBLK(st.st_mode)))
		return -ENOTSUP;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", probe);
	/* Of a device O_EXCL keeps out whoever mounts it, and us if it is mounted. */
	int excl = S_ISBLK(st.st_mode) ? O_EXCL : 0;
	int fd = open(again, (*read_only ? O_RDONLY : O_RDWR | excl) | O_CLOEXEC | O_NOCTTY), ro = 0;
	if (fd >= 0 && !*read_only && excl && ioctl(fd, BLKROGET, &ro) == 0 && ro) {
		close(fd);
		fd = -1;
		errno = EROFS;
	}
	if (fd < 0 && !*read_only && (errno == EACCES || errno == EROFS || errno == EPERM)) {
		fd = open(again, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		*read_only = true;
	}
	return fd < 0 ? -errno : fd;
}

int region_file_size(int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, ret) < 0 ? -errno : 0;
	*ret = (uint64_t)st.st_size;
	return 0;
}

/* udev holds a device's lock while it looks at it. */
static int lock_file(int fd, bool read_only)
{
	const struct timespec nap = {.tv_nsec = 50000000};
	struct stat st;
	int tries = fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) ? 60 : 1;

	while (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return -errno;
		if (--tries == 0)
			return -EBUSY;
		nanosleep(&nap, NULL);
	}
	return 0;
}

static const char *why_not_opened(int code, bool beneath)
{
	switch (code) {
	case EBUSY:
		return "it is in use: mounted, or part of another device";
	case EISDIR:
		return "it is a directory";
	case ENOTSUP:
		return beneath ? "it is not a regular file" : "it is neither a regular file nor a block device";
	case ELOOP:
	case EXDEV:
		if (beneath)
			return "it leads out of the directory, or through a link";
		/* fallthrough */
	default:
		return strerror(code);
	}
}

int weft_region_open_file(int dirfd, const char *path, const char *name, bool beneath, bool read_only,
	struct weft_region **ret, struct weft_error *err)
{
	char description[96], size[32];
	uint64_t size_bytes;
	struct stat st;
	int block = 0, r;

	if (!weft_region_name_valid(name, 4096))
		return weft_error_set(err, EINVAL, "'%.100s' cannot be a region's name: that is 1 to 4096 bytes of UTF-8 "
			"without control characters", name);
	int fd = open_regular(dirfd, path, beneath, &read_only);
	if (fd < 0)
		return weft_error_set(err, -fd, "region '%s': cannot open file %s: %s", name, path,
			why_not_opened(-fd, beneath));
	r = lock_file(fd, read_only);
	if (r < 0) {
		weft_error_set(err, -r, "region '%s': file %s %s%s", name, path,
			r == -EBUSY ? "is in use: another region or daemon has it locked"
				    : "cannot be locked: ",
			r == -EBUSY ? "" : strerror(-r));
		close(fd);
		return r;
	}
	if (fstat(fd, &st) < 0 || (r = region_file_size(fd, &size_bytes)) < 0 ||
		(S_ISBLK(st.st_mode) && ioctl(fd, BLKSSZGET, &block) < 0)) {
		r = weft_error_set(err, errno, "region '%s': file %s: %s", name, path, strerror(errno));
		close(fd);
		return r;
	}
	if (size_bytes == 0) {
		r = weft_error_set(err, ENODATA, "region '%s': file %s is empty%s", name, path,
			block ? "" : "; give it a size first: truncate -s 1G FILE");
		close(fd);
		return r;
	}
	snprintf(description, sizeof(description), "%s, %s%s", block ? "block device" : "file",
		weft_format_size(size_bytes, size, sizeof(size)), read_only ? ", read-only" : "");
	struct weft_region *region = region_new(WEFT_BACKING_FILE, name, description);
	if (!region) {
		close(fd);
		return weft_error_set(err, ENOMEM, "region '%s': no memory", name);
	}
	region->fd = fd;
	region->size_bytes = size_bytes;
	region->block_bytes = (uint32_t)block;
	region->read_only = read_only;
	region->has_name = st.st_nlink > 0 && !block;
	region->generations = calloc(WEFT_NR_GENERATIONS, sizeof(*region->generations));
	if (!region->generations || region_stage_init(region) < 0 || take_mark(region, &st) < 0) {
		region_free(region);
		return weft_error_set(err, ENOMEM, "region '%s': no memory", name);
	}
	region->unmarked |= block != 0;
	/* In a directory there are no leases files: whoever serves files there has to have attributes. */
	region->forgets |= region->unmarked && !read_only && !beneath;
	*ret = region;
	return 0;
}

static bool is_held(const struct weft_generation table[WEFT_NR_GENERATIONS])
{
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (table[i].generation != 0 && table[i].held)
			return true;
	return false;
}

void region_file_finish(struct weft_region *region)
{
	struct region_note *note = region->note;
	bool changed = atomic_load(&region->marked) || !region->was_clean || (note && region->table_seq != note->seq);
	struct stat st;

	if (region->read_only || region->fd < 0 || !note)
		return;
	if (region->block_bytes) {
		weft_region_flush(region);
		return;
	}
	memcpy(note->table, region->generations, sizeof(note->table));
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		/* Whatever that generation wrote is in the file now, and nobody joins it any more. */
		changed |= note->table[i].flags & WEFT_ENTRY_HERE;
		if (note->table[i].flags & WEFT_ENTRY_HERE)
			note->table[i].flags = 0;
	}
	if (!changed)
		return;
	/* Another mark is of other contents, which ours would say to be these. */
	if (check_mark(region) < 0)
		return;
	if (!is_held(note->table))
		note->lease_ms = 0;
	/* Without this mark the next opening starts a new epoch, which is right after any failure. */
	if (weft_region_flush(region) < 0 || fsync(region->fd) < 0 || fstat(region->fd, &st) < 0 ||
		(uint64_t)st.st_size < region->size_bytes)
		return;
	write_mark(region, true);
}

int weft_region_note_table(struct weft_region *region, const struct weft_generation table[WEFT_NR_GENERATIONS],
	const struct weft_stripe *stripe, uint64_t seq, uint32_t lease_ms)
{
	struct region_note *note = region->note;
	bool due;
	int r = 0;

	if (region->promise_path)
		return region_note_promises(region, table, seq, lease_ms);
	if (region->read_only)
		return 0;
	pthread_mutex_lock(&region->flush_lock);
	if (seq > note->seq && check_mark(region) == -EUCLEAN) {
		/* Whose contents these are the copy's own mark says, once the file is opened anew. */
		atomic_store(&region->lost, -EUCLEAN);
		r = -EUCLEAN;
	} else if (seq > note->seq) {
		bool marked = atomic_load(&region->marked);
		uint32_t noted_ms = note->lease_ms;
		struct weft_stripe noted_stripe = note->stripe;

		/* An open mark tells for how long nobody else may be granted what comes after a crash, and which part of a device that is. */
		due = !marked || lease_ms > note->lease_ms || !weft_stripe_equal(stripe, &note->stripe);
		note->stripe = *stripe;
		note->lease_ms = (uint32_t)weft_max(lease_ms, marked ? note->lease_ms : 0);
		memcpy(note->table, table, sizeof(note->table));
		r = due ? write_mark(region, !marked) : 0;
		if (r == -ENOTSUP && !region->was_clean)
			r = 0; /* there is none: each opening is an epoch */
		/* The one that there is knows nothing of this grant, which is not made then: the next try has to note it. */
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

int region_file_check(struct weft_region *region)
{
	struct stat st;

	if (atomic_load_explicit(&region->lost, memory_order_relaxed) < 0 || fstat(region->fd, &st) < 0)
		return -EIO;
	if (region->has_name && st.st_nlink == 0)
		return -EIO;
	if (region->block_bytes) /* what is beyond its end fails by itself */
		return 0;
	/* A write beyond the end of a file that shrank would put zeros where data was. */
	return (uint64_t)st.st_size < region->size_bytes ? -EIO : 0;
}

/* What the file was opened as, and whether another is there now. */
static bool find_path(int fd, char *path, size_t size)
{
	static const char deleted[] = " (deleted)";
	char link[64];
	struct stat there;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, size - 1);
	path[n < 0 ? 0 : n] = '\0';
	char *end = strstr(path, deleted);
	if (end && end[sizeof(deleted) - 1] == '\0')
		*end = '\0';
	return lstat(path, &there) == 0;
}

int weft_region_check(const struct weft_region *region, struct weft_error *err)
{
	int lost = atomic_load_explicit(&region->lost, memory_order_relaxed);
	char path[PATH_MAX], left[32], all[32];
	struct statx st;

	if (region->backing == WEFT_BACKING_MEMORY)
		return 0;
	if (lost == -EUCLEAN)
		return weft_error_set(err, EIO, "region '%s': a copy was put back in its file's place while it was lent", region->name);
	if (lost < 0)
		return weft_error_set(err, EIO, "region '%s': its file could not be made durable (%s), and what it holds is not "
			"known", region->name, strerror(-lost));
	/* Whoever asks about all regions must not wait for one that is on a network. */
	if (statx(region->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_NLINK | STATX_SIZE, &st) < 0)
		return weft_error_set(err, EIO, "region '%s': its file cannot be looked at: %s", region->name, strerror(errno));
	if (region->has_name && st.stx_nlink == 0) {
		bool replaced = find_path(region->fd, path, sizeof(path));

		return weft_error_set(err, EIO, "region '%s': its file %s was %s", region->name, path,
			replaced ? "replaced by another one" : "removed");
	}
	uint64_t size = st.stx_size;
	if (region->block_bytes && region_file_size(region->fd, &size) < 0)
		size = 0;
	if (size < region->size_bytes) {
		find_path(region->fd, path, sizeof(path));
		return weft_error_set(err, EIO, "region '%s': its file %s became shorter: %s of %s are left", region->name, path,
			weft_format_size(size, left, sizeof(left)),
			weft_format_size(region->size_bytes, all, sizeof(all)));
	}
	return 0;
}

int region_file_check_write(struct weft_region *region)
{
	int r = region_file_check(region);

	if (r < 0 || atomic_load_explicit(&region->marked, memory_order_acquire))
		return r;
	pthread_mutex_lock(&region->flush_lock);
	if (!atomic_load(&region->marked)) {
		r = check_mark(region);
		if (r == -EUCLEAN)
			atomic_store(&region->lost, r);
		else
			r = write_mark(region, false);
		/* Without attributes each opening is a new epoch; a clean mark that cannot be replaced would lie. */
		if (r == -ENOTSUP && !region->was_clean)
			r = 0;
		if (r == 0)
			atomic_store_explicit(&region->marked, true, memory_order_release);
	}
	pthread_mutex_unlock(&region->flush_lock);
	return r < 0 ? -EIO : 0;
}

static void assert_file_range(const struct weft_region *region, uint64_t off, uint64_t len)
{
	assert(region->backing == WEFT_BACKING_FILE);
	assert(off <= region->size_bytes && len <= region->size_bytes - off);
}

int region_file_pread(struct weft_region *region, void *buf, uint64_t off, uint64_t len)
{
	for (uint8_t *p = buf; len > 0;) {
		ssize_t n = pread(region->fd, p, len, (off_t)off);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			return -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int region_file_pwrite(struct weft_region *region, const void *buf, uint64_t off, uint64_t len)
{
	int r = 0;

	for (const uint8_t *p = buf; len > 0 && r == 0;) {
		ssize_t n = pwrite(region->fd, p, len, (off_t)off);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			r = errno == EDQUOT || errno == EFBIG ? -ENOSPC : -errno;
		} else if (n == 0) {
			r = -EIO;
		} else {
			p += n;
			off += (uint64_t)n;
			len -= (uint64_t)n;
		}
	}
	/* Also after a failure: some of it may have been written. */
	atomic_store(&region->dirty, true);
	return r;
}

int weft_region_read(struct weft_region *region, void *buf, uint64_t off, uint64_t len)
{
	int r = 0;

	assert_file_range(region, off, len);
	if (atomic_load_explicit(&region->lost, memory_order_relaxed) < 0)
		return -EIO;
	const uint8_t *memory = region_enter(region);
	if (memory)
		memcpy(buf, memory + off, len);
	else
		r = region_file_pread(region, buf, off, len);
	region_leave(region);
	return r;
}

int weft_region_write(struct weft_region *region, const void *buf, uint64_t off, uint64_t len)
{
	assert_file_range(region, off, len);
	if (region->read_only)
		return -EPERM;
	int r = region_file_check_write(region);
	if (r < 0)
		return r;
	uint8_t *memory = region_enter(region);
	if (memory)
		memcpy(memory + off, buf, len);
	else
		r = region_file_pwrite(region, buf, off, len);
	region_note_change(region, off, len);
	region_leave(region);
	return r;
}

int region_flush_file(struct weft_region *region)
{
	int r;

	/* Under the lock: whoever finds nothing dirty must not overtake the flush that took it on. */
	pthread_mutex_lock(&region->flush_lock);
	r = atomic_load(&region->lost);
	if (r == 0)
		r = region_write_back(region);
	if (r == 0 && atomic_exchange(&region->dirty, false) && fdatasync(region->fd) < 0) {
		/* The kernel reports it once, and may drop the pages: we never forget. */
		r = -errno;
		atomic_store(&region->lost, r);
	}
	pthread_mutex_unlock(&region->flush_lock);
	return r;
}

int weft_region_flush(struct weft_region *region)
{
	if (region->backing == WEFT_BACKING_MEMORY)
		return 0;
	region_enter(region);
	int r = region_flush_file(region);
	region_leave(region);
	return r;
}
