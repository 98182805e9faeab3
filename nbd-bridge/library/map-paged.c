/* SPDX-License-Identifier: MIT */
/*
 * The kernel's side of a map: userfaultfd(2), and the scan of page tables.  Any thread; nothing
 * here takes a lock, or faults in the map.
 *
 * The map's pages are caught when they are missing, and write-protected.  The slots are only
 * write-protected, since a MOVE goes into what is registered alone: a page that is missing there is
 * the kernel's affair, and no access of ours to a slot can wait for a handler.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/map-uapi.h"

enum {
	REGIONS = 128, /* of one scan */
	YIELDS = 64,   /* before a page that is locked is waited for by sleeping */
	PAUSE_US = 50,
};

/* ---- what this machine can do ---- */

static int open_userfaultfd(struct weft_map *m)
{
	WEFT_CLEANUP_CLOSE int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;

	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == EPERM) {
		fd = (int)syscall(
			SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
		m->user_faults_only = fd >= 0;
	}
	return fd < 0 ? -errno : fd;
}

/* Asked with a descriptor of its own: UFFDIO_API can be called once. */
static int features_of(uint64_t *ret)
{
	struct uffdio_api api = {.api = UFFD_API};
	WEFT_CLEANUP_CLOSE int fd =
		(int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		return -errno;
	*ret = api.features;
	return 0;
}

int map_probe(struct weft_map *m, unsigned flags, struct weft_error *err)
{
	const uint64_t need = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
		UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	struct uffdio_api api = {.api = UFFD_API, .features = need};
	uint64_t has = 0;
	int r = features_of(&has);

	if (r == -ENOSYS)
		return weft_error_set(err, ENOSYS,
			"cannot map: this kernel has no userfaultfd(2), or a filter of system "
			"calls forbids it");
	if (r == 0 && (has & need) != need)
		return weft_error_set(err, ENOTSUP,
			"cannot map: weft_map() needs Linux 6.8 or later (userfaultfd features "
			"%#llx are missing)",
			(unsigned long long)(need & ~has));
	m->uffd = open_userfaultfd(m);
	if (m->uffd < 0)
		return weft_error_set(err, -m->uffd, "cannot map: userfaultfd: %s",
			strerror(-m->uffd));
	if (m->user_faults_only && flags & WEFT_MAP_ALL_FAULTS)
		return weft_error_set(err, EPERM,
			"cannot map: this user may not have page faults of system calls handled; "
			"let the user open /dev/userfaultfd, or set "
			"vm.unprivileged_userfaultfd=1");
	if (ioctl(m->uffd, UFFDIO_API, &api) < 0)
		return weft_error_set(err, errno, "cannot map: UFFDIO_API: %s", strerror(errno));
	m->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (m->pagemap < 0)
		return weft_error_set(err, errno, "cannot map: /proc/self/pagemap: %s",
			strerror(errno));
	return 0;
}

/* ---- the mappings ---- */

static int make(size_t bytes, int prot, uint8_t **ret)
{
	void *at = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	*ret = at;
	/*
	 * A child of fork(2) would read zeros for what is missing; and a huge page would be
	 * more than a unit.
	 */
	if (madvise(at, bytes, MADV_DONTFORK) < 0 || madvise(at, bytes, MADV_DONTDUMP) < 0)
		return -errno;
	/* A kernel without huge pages does not know this one. */
	return madvise(at, bytes, MADV_NOHUGEPAGE) < 0 && errno != EINVAL ? -errno : 0;
}

static int watch(struct weft_map *m, void *at, uint64_t bytes, uint64_t mode)
{
	struct uffdio_register reg = {.range = {(uintptr_t)at, bytes}, .mode = mode};

	return ioctl(m->uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

int map_make_mappings(struct weft_map *m, struct weft_error *err)
{
	const int prot = PROT_READ | (m->read_only ? 0 : PROT_WRITE);
	const uint64_t protects = m->read_only ? 0 : UFFDIO_REGISTER_MODE_WP;
	uint64_t stage_bytes = m->nr_frames * m->unit_bytes;
	int r = make(m->map_bytes, prot, &m->base);

	if (r == 0)
		r = make(stage_bytes, PROT_READ | PROT_WRITE, &m->stage);
	if (r == 0)
		r = watch(m, m->base, m->map_bytes, UFFDIO_REGISTER_MODE_MISSING | protects);
	if (r == 0 && protects)
		r = watch(m, m->stage, stage_bytes, protects);
	if (r < 0)
		return weft_error_set(err, -r,
			"cannot map %llu bytes: %s (see ulimit -v, vm.max_map_count and "
			"vm.overcommit_memory)",
			(unsigned long long)m->map_bytes, strerror(-r));
	return 0;
}

void map_end_mappings(struct weft_map *m)
{
	if (m->base)
		munmap(m->base, m->map_bytes);
	if (m->stage)
		munmap(m->stage, m->nr_frames * m->unit_bytes);
	weft_close_fd(m->uffd);
	weft_close_fd(m->pagemap);
	weft_close_fd(m->stop_fd);
}

/* ---- moving pages ---- */

static void wake(struct weft_map *m, const uint8_t *at, uint64_t bytes)
{
	struct uffdio_range range = {(uintptr_t)at, bytes};

	ioctl(m->uffd, UFFDIO_WAKE, &range);
}

/* A page is locked, or the mappings change, for a moment. */
static void pause_a_moment(unsigned *nr)
{
	if ((*nr)++ < YIELDS)
		sched_yield();
	else
		usleep(PAUSE_US);
}

enum { ENTRIES = 64 };

/* Whether there is a page, here or in swap, for each page from `at` on. */
static bool look_for_pages(struct weft_map *m, const uint8_t *at, unsigned nr, bool *ret)
{
	uint64_t entries[ENTRIES];
	size_t bytes = nr * sizeof(entries[0]);
	off_t off = (off_t)((uintptr_t)at / weft_page_bytes() * sizeof(entries[0]));

	if (pread(m->pagemap, entries, bytes, off) != (ssize_t)bytes)
		return false;
	for (unsigned i = 0; i < nr; i++)
		ret[i] = entries[i] >> 62 != 0;
	return true;
}

/*
 * Linux 6.18 moves several pages at once, and sometimes tries again after it has moved them: then
 * it says EEXIST or ENOENT, and that it has moved nothing.  Both places belong to the caller, so a
 * page that has gone here and is there has been moved.  Returns bytes.
 */
static uint64_t moved_all_the_same(
	struct weft_map *m, const uint8_t *to, const uint8_t *from, uint64_t bytes)
{
	const uint64_t page = weft_page_bytes();
	unsigned nr = (unsigned)weft_min(bytes / page, ENTRIES), n = 0;
	bool here[ENTRIES], there[ENTRIES];

	if (!look_for_pages(m, from, nr, here) || !look_for_pages(m, to, nr, there))
		return 0;
	while (n < nr && !here[n] && there[n])
		n++;
	return n * page;
}

/* Moves all, or what can be: *ret_moved.  0, or -errno. */
static int move_some(
	struct weft_map *m, uint8_t *to, uint8_t *from, uint64_t bytes, uint64_t *ret_moved)
{
	uint64_t done = 0;
	unsigned nr_pauses = 0;
	bool unseen = false;
	int error = 0;

	while (done < bytes && error == 0) {
		struct uffdio_move move = {
			.dst = (uintptr_t)(to + done),
			.src = (uintptr_t)(from + done),
			.len = bytes - done,
		};
		int r = ioctl(m->uffd, UFFDIO_MOVE, &move) < 0 ? -errno : 0;

		if (move.move > 0) {
			done += (uint64_t)move.move;
		} else if (r == -EAGAIN) {
			pause_a_moment(&nr_pauses);
		} else {
			uint64_t more = moved_all_the_same(m, to + done, from + done, bytes - done);

			done += more;
			unseen |= more > 0;
			error = more > 0 ? 0 : r;
		}
	}
	if (unseen)
		wake(m, to, bytes);
	*ret_moved = done;
	return error;
}

/* All, or none. */
static int move(struct weft_map *m, uint8_t *to, uint8_t *from, uint64_t bytes)
{
	uint64_t moved, back;
	int r = move_some(m, to, from, bytes, &moved);

	if (r < 0 && moved > 0)
		move_some(m, from, to, moved, &back);
	return r;
}

static int protect(struct weft_map *m, const uint8_t *at, uint64_t bytes)
{
	struct uffdio_writeprotect wp = {
		.range = {(uintptr_t)at, bytes},
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	unsigned nr_pauses = 0;

	while (ioctl(m->uffd, UFFDIO_WRITEPROTECT, &wp) < 0) {
		if (errno != EAGAIN)
			return -errno;
		pause_a_moment(&nr_pauses);
	}
	return 0;
}

/* Without protection its pages count as written, so that a failure of it costs a WRITE. */
static int paged_show(struct weft_map *m, uint32_t frame)
{
	uint64_t unit = m->frames[frame].unit, bytes = map_unit_bytes(m, unit);
	int r = move(m, map_at(m, unit), map_slot(m, frame), bytes);

	if (r == 0)
		protect(m, map_at(m, unit), bytes);
	return r;
}

struct scan {
	struct weft_map *m;
	uint64_t flags;
	void (*fn)(struct scan *scan, uint64_t from, uint64_t to);
	uint8_t *first; /* of a unit */
	uint64_t grains;
	void (*tell)(struct weft_map *m, uint64_t from, uint64_t to);
};

/* A page that the kernel has swapped out is not there, and was written all the same. */
static int scan_range(struct scan *scan, const uint8_t *from, uint64_t bytes)
{
	struct page_region regions[REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = scan->flags,
		.start = (uintptr_t)from,
		.end = (uintptr_t)from + bytes,
		.vec = (uintptr_t)regions,
		.vec_len = REGIONS,
		.category_mask = PAGE_IS_WRITTEN,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_WRITTEN,
	};

	while (arg.start < arg.end) {
		long nr = ioctl(scan->m->pagemap, PAGEMAP_SCAN, &arg);

		if (nr < 0 && errno != EINTR)
			return -errno;
		for (long i = 0; i < nr; i++)
			scan->fn(scan, regions[i].start, regions[i].end);
		if (nr >= 0)
			arg.start = arg.walk_end;
	}
	return 0;
}

static void note_grains(struct scan *scan, uint64_t from, uint64_t to)
{
	const uint64_t grain = scan->m->grain_bytes, first = (uintptr_t)scan->first;

	for (uint64_t i = (from - first) / grain; i <= (to - 1 - first) / grain; i++)
		scan->grains |= UINT64_C(1) << i;
}

static int paged_hide(struct weft_map *m, uint32_t frame, uint64_t *ret_written)
{
	uint64_t unit = m->frames[frame].unit, bytes = map_unit_bytes(m, unit);
	struct scan scan = {.m = m, .fn = note_grains, .first = map_at(m, unit)};
	int r = scan_range(&scan, scan.first, bytes);

	if (r == 0)
		r = move(m, map_slot(m, frame), scan.first, bytes);
	if (r == 0)
		*ret_written = scan.grains;
	return r;
}

static void tell_written(struct scan *scan, uint64_t from, uint64_t to)
{
	uint64_t base = (uintptr_t)scan->m->base;

	scan->tell(scan->m, from - base, to - base);
}

int map_scan(struct weft_map *m, uint64_t from, uint64_t to,
	void (*fn)(struct weft_map *m, uint64_t from, uint64_t to))
{
	struct scan scan = {
		.m = m,
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.fn = tell_written,
		.tell = fn,
	};

	return scan_range(&scan, m->base + from, to - from);
}

const struct map_mode map_paged = {
	.name = "paged",
	.keeps = true,
	.show = paged_show,
	.hide = paged_hide,
};

/* ---- a map that is not written: pages that leave are dropped ---- */

static int read_only_show(struct weft_map *m, uint32_t frame)
{
	uint64_t unit = m->frames[frame].unit, bytes = map_unit_bytes(m, unit), done = 0;
	unsigned nr_pauses = 0;
	int r = 0;

	while (done < bytes && r == 0) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)(map_at(m, unit) + done),
			.src = (uintptr_t)(map_slot(m, frame) + done),
			.len = bytes - done,
		};

		r = ioctl(m->uffd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
		if (copy.copy > 0)
			done += (uint64_t)copy.copy;
		if (r == -EAGAIN) {
			r = 0;
			pause_a_moment(&nr_pauses);
		}
	}
	madvise(map_slot(m, frame), bytes, MADV_DONTNEED);
	return r;
}

static int read_only_hide(struct weft_map *m, uint32_t frame, uint64_t *ret_written)
{
	return map_cure(m, m->frames[frame].unit);
}

const struct map_mode map_paged_read_only = {
	.name = "paged",
	.show = read_only_show,
	.hide = read_only_hide,
};

/* ---- looking at pages that are in the map ---- */

int map_read(const void *from, void *to, uint64_t len)
{
	const struct iovec there = {(void *)from, len}, here = {to, len};

	if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)len)
		return 0;
	if (errno != EPERM && errno != ENOSYS)
		return -EFAULT;
	memcpy(to, from, len); /* a filter of system calls forbids it */
	return 0;
}

/* ---- whoever waits ---- */

void map_wake(struct weft_map *m, uint64_t unit)
{
	wake(m, map_at(m, unit), map_unit_bytes(m, unit));
}

int map_poison(struct weft_map *m, uint64_t unit)
{
	uint64_t done = 0, bytes = map_unit_bytes(m, unit);
	unsigned nr_pauses = 0;
	int r = 0;

	while (done < bytes && r == 0) {
		struct uffdio_poison poison = {
			.range = {(uintptr_t)(map_at(m, unit) + done), bytes - done},
		};

		r = ioctl(m->uffd, UFFDIO_POISON, &poison) < 0 ? -errno : 0;
		if (poison.updated > 0)
			done += (uint64_t)poison.updated;
		if (r == -EAGAIN) {
			r = 0;
			pause_a_moment(&nr_pauses);
		}
	}
	map_wake(m, unit);
	return r;
}

bool map_is_here(struct weft_map *m, uint64_t address)
{
	uint64_t entry = 0;
	off_t off = (off_t)(address / weft_page_bytes() * sizeof(entry));

	return pread(m->pagemap, &entry, sizeof(entry), off) != sizeof(entry) || entry >> 63;
}

void map_poison_page(struct weft_map *m, uint64_t address)
{
	const uint64_t page = weft_page_bytes();
	struct uffdio_poison poison = {.range = {address / page * page, page}};

	/* The protection may have left a mark where the page was. */
	madvise((void *)(uintptr_t)poison.range.start, page, MADV_DONTNEED);
	ioctl(m->uffd, UFFDIO_POISON, &poison);
}

int map_cure(struct weft_map *m, uint64_t unit)
{
	int r = madvise(map_at(m, unit), map_unit_bytes(m, unit), MADV_DONTNEED);

	return r < 0 ? -errno : 0;
}
