/* SPDX-License-Identifier: MIT */
/*
 * What all modes of a map ask of userfaultfd(2): the mappings, waking who waits, and units that are
 * SIGBUS.  Any thread; nothing here takes a lock, or faults in the map.
 *
 * A unit that is SIGBUS is marked by UFFDIO_POISON.  Linux before 6.6 does not have that; there an
 * empty file is mapped in the unit's place.  The way back is a mapping of the map's file that is
 * made and registered somewhere else, and then takes the place at once: nobody finds the place
 * unwatched.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/map-uapi.h"

enum {
	YIELDS = 64, /* before a page that is locked is waited for by sleeping */
	PAUSE_US = 50,
	FAULTS = 64, /* read at a time */
};

/* ---- the mappings ---- */

static uint64_t stage_bytes(const struct weft_map *m)
{
	return m->mode->shares ? m->map_bytes : m->nr_frames * m->unit_bytes;
}

static int prot_of(const struct weft_map *m)
{
	return PROT_READ | (m->read_only ? 0 : PROT_WRITE);
}

/* fd: -1: memory of its own. */
static int make(size_t bytes, int prot, int fd, uint64_t off, uint8_t **ret)
{
	const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *at = mmap(NULL, bytes, prot, flags | MAP_NORESERVE, fd, (off_t)off);

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

static uint64_t protection(const struct weft_map *m)
{
	return m->protects ? UFFDIO_REGISTER_MODE_WP : 0;
}

/* A part of the map, wherever there is room for it. */
static int make_part(struct weft_map *m, uint64_t off, uint64_t bytes, uint8_t **ret)
{
	uint64_t minor = m->mode->shares ? UFFDIO_REGISTER_MODE_MINOR : 0;
	int r = make(bytes, prot_of(m), m->file, off, ret);

	return r == 0 ? watch(m, *ret, bytes, UFFDIO_REGISTER_MODE_MISSING | minor | protection(m))
		      : r;
}

static int make_files(struct weft_map *m)
{
	m->file = memfd_create("weft-map", MFD_CLOEXEC);
	m->empty = memfd_create("weft-map-none", MFD_CLOEXEC);
	if (m->file < 0 || m->empty < 0 || ftruncate(m->file, (off_t)m->map_bytes) < 0)
		return -errno;
	return 0;
}

int map_make_mappings(struct weft_map *m, struct weft_error *err)
{
	int r = m->mode->shares ? make_files(m) : 0;

	if (r == 0)
		r = make(stage_bytes(m), PROT_READ | PROT_WRITE, m->file, 0, &m->stage);
	if (r == 0)
		r = make_part(m, 0, m->map_bytes, &m->base);
	/* Pages that stay may be huge, where the system has such for files. */
	if (r == 0 && m->mode->whole)
		madvise(m->stage, stage_bytes(m), MADV_HUGEPAGE);
	if (r == 0 && m->protects && !m->mode->shares)
		r = watch(m, m->stage, stage_bytes(m), protection(m));
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
		munmap(m->stage, stage_bytes(m));
	weft_close_fd(m->uffd);
	weft_close_fd(m->pagemap);
	weft_close_fd(m->stop_fd);
	weft_close_fd(m->file);
	weft_close_fd(m->empty);
}

/* ---- slots ---- */

void map_drop_slots(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	madvise(map_slot(m, frame), nr * m->unit_bytes, MADV_DONTNEED);
	for (uint32_t i = 0; i < nr; i++)
		m->frames[frame + i].warm = false;
}

void map_warm_slots(uint8_t *slots, uint64_t bytes)
{
	/* A kernel before 5.14 does not know this one. */
	madvise(slots, bytes, MADV_POPULATE_WRITE);
}

/* ---- whoever waits ---- */

void map_wake_range(struct weft_map *m, const uint8_t *at, uint64_t bytes)
{
	struct uffdio_range range = {(uintptr_t)at, bytes};

	ioctl(m->uffd, UFFDIO_WAKE, &range);
}

void map_wake(struct weft_map *m, uint64_t unit)
{
	map_wake_range(m, map_at(m, unit), map_unit_bytes(m, unit));
}

/*
 * After an mremap(2) everything else is EAGAIN until somebody has read the kernel's message of it.
 * The handlers may all be waiting for that.  Whoever waits for a page meanwhile faults again.
 */
static void read_messages(struct weft_map *m)
{
	uint64_t faults[FAULTS];
	unsigned nr = 0;
	struct uffd_msg msg;

	while (nr < FAULTS && read(m->uffd, &msg, sizeof(msg)) == sizeof(msg))
		if (msg.event == UFFD_EVENT_PAGEFAULT)
			faults[nr++] = msg.arg.pagefault.address;
	for (unsigned i = 0; i < nr; i++)
		map_wake(m, (faults[i] - (uintptr_t)m->base) / m->unit_bytes);
}

void map_pause(struct weft_map *m, unsigned *nr)
{
	if (m->overlays)
		read_messages(m);
	if ((*nr)++ < YIELDS)
		sched_yield();
	else
		usleep(PAUSE_US);
}

int map_protect(struct weft_map *m, const uint8_t *at, uint64_t bytes, bool protects)
{
	struct uffdio_writeprotect wp = {
		.range = {(uintptr_t)at, bytes},
		.mode = protects ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	unsigned nr_pauses = 0;

	while (ioctl(m->uffd, UFFDIO_WRITEPROTECT, &wp) < 0) {
		if (errno != EAGAIN)
			return -errno;
		map_pause(m, &nr_pauses);
	}
	return 0;
}

/* ---- looking at pages that are in the map ---- */

/* Its pages may be touched: nobody but the map's threads can drop them. */
static bool lies_in_slot(const struct weft_map *m, uint32_t frame)
{
	return m->mode->shares || m->frames[frame].state == FRAME_STAGED;
}

int map_read(const struct weft_map *m, uint32_t frame, uint64_t first, void *to, uint64_t len)
{
	const uint8_t *from = map_at(m, m->frames[frame].unit) + first;
	const struct iovec there = {(void *)from, len}, here = {to, len};

	if (lies_in_slot(m, frame)) {
		memcpy(to, map_slot(m, frame) + first, len);
		return 0;
	}
	if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)len)
		return 0;
	if (errno != EPERM && errno != ENOSYS)
		return -EFAULT;
	memcpy(to, from, len); /* a filter of system calls forbids it */
	return 0;
}

/* Of frames in the map, by one system call.  True: all of them. */
static bool read_together(const struct weft_map *m, const struct map_copy *copies, unsigned nr)
{
	struct iovec there[MAP_COPIES], here[MAP_COPIES];
	uint64_t bytes = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < nr; i++) {
		const struct map_copy *copy = &copies[i];

		if (lies_in_slot(m, copy->frame))
			continue;
		there[n] = (struct iovec){
			map_at(m, m->frames[copy->frame].unit) + copy->first, copy->len};
		here[n++] = (struct iovec){copy->to, copy->len};
		bytes += copy->len;
	}
	return n > 1 && process_vm_readv(getpid(), here, n, there, n, 0) == (ssize_t)bytes;
}

void map_read_all(const struct weft_map *m, struct map_copy *copies, unsigned nr)
{
	const bool all = read_together(m, copies, nr);

	for (unsigned i = 0; i < nr; i++) {
		struct map_copy *copy = &copies[i];

		copy->error = all && !lies_in_slot(m, copy->frame)
			? 0
			: map_read(m, copy->frame, copy->first, copy->to, copy->len);
	}
}

/* ---- units that are SIGBUS ---- */

static int put_empty(struct weft_map *m, uint64_t off, uint64_t bytes)
{
	void *at = mmap(m->base + off, bytes, prot_of(m), MAP_SHARED | MAP_FIXED, m->empty,
		(off_t)off);

	if (at == MAP_FAILED)
		return -errno;
	madvise(at, bytes, MADV_DONTFORK);
	madvise(at, bytes, MADV_DONTDUMP);
	m->overlaid = true;
	return 0;
}

/* Where a page is, here or in swap, or a mark of this kind, that stays. */
static int poison_range(struct weft_map *m, const uint8_t *at, uint64_t bytes)
{
	uint64_t done = 0;
	unsigned nr_pauses = 0;
	int r = 0;

	while (done < bytes && r == 0) {
		struct uffdio_poison poison = {.range = {(uintptr_t)(at + done), bytes - done}};

		r = ioctl(m->uffd, UFFDIO_POISON, &poison) < 0 ? -errno : 0;
		if (poison.updated > 0)
			done += (uint64_t)poison.updated;
		else if (r == -EEXIST)
			done += weft_page_bytes();
		else if (r == -EAGAIN)
			map_pause(m, &nr_pauses);
		if (r == -EEXIST || r == -EAGAIN)
			r = 0;
	}
	return r;
}

int map_poison(struct weft_map *m, uint64_t unit)
{
	uint64_t bytes = map_unit_bytes(m, unit);
	int r;

	/* Where a page of a file was protected, a mark stays, and is in the way. */
	if (m->mode->shares && m->protects && !m->overlays)
		map_protect(m, map_at(m, unit), bytes, false);
	r = m->overlays ? put_empty(m, map_unit_off(m, unit), bytes)
			: poison_range(m, map_at(m, unit), bytes);
	map_wake(m, unit);
	return r;
}

void map_poison_all(struct weft_map *m)
{
	if (m->overlays && put_empty(m, 0, m->map_bytes) == 0)
		map_wake_range(m, m->base, m->map_bytes);
}

/* False: it may be in swap space, or on its way from one place of memory to another. */
static bool is_here(struct weft_map *m, const uint8_t *at)
{
	uint64_t entry = 0;
	off_t off = (off_t)((uintptr_t)at / weft_page_bytes() * sizeof(entry));

	return pread(m->pagemap, &entry, sizeof(entry), off) == sizeof(entry) && entry >> 63;
}

void map_poison_page_that_is_gone(struct weft_map *m, uint64_t address)
{
	const uint64_t page = weft_page_bytes();
	const uint8_t *at = (uint8_t *)(uintptr_t)(address / page * page);

	if (!is_here(m, at)) {
		/* The protection may have left a mark where the page was. */
		map_protect(m, at, page, false);
		poison_range(m, at, page);
	}
	map_wake_range(m, at, page);
}

/* The kernel tells a handler of the mremap(2) before it returns. */
static int take_empty_away(struct weft_map *m, uint64_t off, uint64_t bytes)
{
	uint8_t *part = NULL;
	int r = make_part(m, off, bytes, &part);

	if (r == 0 &&
		mremap(part, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, m->base + off) ==
			MAP_FAILED)
		r = -errno;
	if (r < 0 && part)
		munmap(part, bytes);
	return r;
}

int map_take_pages(struct weft_map *m, uint64_t unit, uint64_t nr)
{
	return madvise(map_at(m, unit), map_run_bytes(m, unit, nr), MADV_DONTNEED) < 0 ? -errno : 0;
}

int map_cure(struct weft_map *m, uint64_t first, uint64_t end)
{
	uint64_t off = map_unit_off(m, first);
	uint64_t bytes = weft_min(map_unit_off(m, end), m->map_bytes) - off;

	if (m->overlays)
		return take_empty_away(m, off, bytes);
	return madvise(m->base + off, bytes, MADV_DONTNEED) < 0 ? -errno : 0;
}

int map_cure_all(struct weft_map *m)
{
	int r = m->overlaid ? take_empty_away(m, 0, m->map_bytes) : 0;

	if (r < 0)
		return r;
	m->overlaid = false;
	if (m->mode->shares &&
		fallocate(m->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			(off_t)m->map_bytes) < 0)
		return -errno;
	return madvise(m->base, m->map_bytes, MADV_DONTNEED) < 0 ? -errno : 0;
}
