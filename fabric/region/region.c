/* SPDX-License-Identifier: MIT */
/*
 * Access to the contents of a region of either backing: reads and writes, zeros, holes; and the
 * region's end.  Threads: as region.h says.
 */
#include "fabric/region/region.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fabric/region/region-private.h"
#include "fabric/base/util.h"

/* Punching less than this costs more than it gives back. */
#define PUNCH_MIN_BYTES (64 * WEFT_KIB)

void weft_region_put(struct weft_region *region)
{
	if (!region)
		return;
	unsigned before = atomic_fetch_sub_explicit(&region->refs, 1, memory_order_acq_rel);

	assert(before > 0);
	if (before > 1)
		return;
	if (region->backing == WEFT_BACKING_FILE) {
		region_file_finish(region);
		region_stage_fini(region);
	}
	region_free(region);
}

static void assert_inside(const struct weft_region *region, uint64_t off, uint64_t len)
{
	assert(off <= region->size_bytes && len <= region->size_bytes - off);
}

/* Gives back whole pages inside the range, and says what is left over at the edges. */
static int memory_punch(struct weft_region *region, uint64_t off, uint64_t len, uint64_t *ret_first,
	uint64_t *ret_last)
{
	uint64_t page = region->page_bytes;
	uint64_t first = (off + page - 1) / page * page;
	uint64_t last = (off + len) / page * page;
	int r;

	/*
	 * A hole in huge pages returns them to a pool that others take from, and a later fault
	 * could then be a SIGBUS.
	 */
	if (page != weft_page_bytes() || last < first + PUNCH_MIN_BYTES)
		return -EOPNOTSUPP;
	/*
	 * This sets nr_punching and then reads nr_pins; weft_region_pin() does it the other way
	 * round.  So at least one of the two sees the other.
	 */
	atomic_fetch_add(&region->nr_punching, 1);
	if (atomic_load(&region->nr_pins) > 0) {
		r = -EOPNOTSUPP;
	} else {
		atomic_store(&region->punched, true);
		do
			r = fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    (off_t)first, (off_t)(last - first)) < 0
				? -errno
				: 0;
		while (r == -EINTR);
	}
	atomic_fetch_sub(&region->nr_punching, 1);
	if (r < 0)
		return r;
	*ret_first = first;
	*ret_last = last;
	return 0;
}

void weft_region_pin(struct weft_region *region)
{
	struct timespec nap = {.tv_nsec = 50000};

	atomic_fetch_add(&region->nr_pins, 1);
	while (atomic_load(&region->nr_punching) > 0)
		nanosleep(&nap, NULL);
}

void weft_region_unpin(struct weft_region *region)
{
	unsigned before = atomic_fetch_sub(&region->nr_pins, 1);

	assert(before > 0);
}

static int memory_zero(struct weft_region *region, uint64_t off, uint64_t len, bool may_punch)
{
	uint64_t first, last;

	if (may_punch && memory_punch(region, off, len, &first, &last) == 0) {
		memset(region->map + off, 0, first - off);
		memset(region->map + last, 0, off + len - last);
	} else {
		memset(region->map + off, 0, len);
	}
	return 0;
}

static void assert_file_range(const struct weft_region *region, uint64_t off, uint64_t len)
{
	assert(region->backing == WEFT_BACKING_FILE);
	assert(off <= region->size_bytes && len <= region->size_bytes - off);
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

static int file_write_zeros(struct weft_region *region, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[256 * 1024];

	while (len > 0) {
		uint64_t n = weft_min(len, sizeof(zeros));
		int r = weft_region_write(region, zeros, off, n);

		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

enum allocation { PUNCH, ZERO, DISCARD };

/* 0, or -EOPNOTSUPP: write zeros instead. */
static int file_tell(const struct weft_region *region, enum allocation what, uint64_t off,
	uint64_t len)
{
	uint64_t range[2] = {off, len};
	int r;

	do {
		if (what == DISCARD && region->block_bytes)
			r = ioctl(region->fd, BLKDISCARD, range);
		else
			r = fallocate(region->fd,
				FALLOC_FL_KEEP_SIZE |
					(what == ZERO ? FALLOC_FL_ZERO_RANGE
						      : FALLOC_FL_PUNCH_HOLE),
				(off_t)off, (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r < 0 && (errno == ENOSYS || errno == ENODEV || errno == EREMOTEIO))
		return -EOPNOTSUPP;
	return r < 0 ? -errno : 0;
}

/* A device's range is in whole blocks.  DISCARD is advisory: nothing need be done. */
static int file_allocate(struct weft_region *region, enum allocation what, uint64_t off,
	uint64_t len)
{
	int r = region_file_check_write(region);

	if (r < 0)
		return r;
	uint8_t *memory = region_enter(region);
	if (memory && what != DISCARD)
		memset(memory + off, 0, len);
	if (!memory)
		r = file_tell(region, what, off, len);
	if (!memory || what != DISCARD)
		region_note_change(region, off, len);
	if (r == 0)
		atomic_store(&region->dirty, true);
	region_leave(region);
	return r;
}

/* Whole blocks between the two, rounded inward; none: *first == *last. */
static void whole_blocks(const struct weft_region *region, uint64_t off, uint64_t len,
	uint64_t *first, uint64_t *last)
{
	uint64_t block = region->block_bytes ? region->block_bytes : 1;

	*first = (off + block - 1) / block * block;
	*last = weft_max((off + len) / block * block, *first);
}

static int file_zero(struct weft_region *region, uint64_t off, uint64_t len, bool may_punch,
	bool fast)
{
	uint64_t first, last;
	int r = -EOPNOTSUPP;

	whole_blocks(region, off, len, &first, &last);
	if (first == last)
		return fast ? r : file_write_zeros(region, off, len);
	if (may_punch)
		r = file_allocate(region, PUNCH, first, last - first);
	/* A device that cannot do it is sent zeros by the kernel. */
	if (r == -EOPNOTSUPP && !(fast && region->block_bytes))
		r = file_allocate(region, ZERO, first, last - first);
	if (r == -EOPNOTSUPP && !fast)
		r = file_write_zeros(region, first, last - first);
	if (r == 0 && first > off)
		r = file_write_zeros(region, off, first - off);
	if (r == 0 && off + len > last)
		r = file_write_zeros(region, last, off + len - last);
	return r;
}

int weft_region_zero(struct weft_region *region, uint64_t off, uint64_t len, bool may_punch,
	bool fast)
{
	assert_inside(region, off, len);
	if (region->read_only)
		return -EPERM;
	if (len == 0)
		return 0;
	/* Clearing memory is fast: sending the zeros would have taken longer. */
	if (region->backing == WEFT_BACKING_MEMORY) {
		int r = memory_zero(region, off, len, may_punch);

		if (weft_region_is_tracked(region))
			weft_region_track_change(region, off, len);
		return r;
	}
	int r = file_zero(region, off, len, may_punch, fast);
	/* A part of it may be zeros where there was an error. */
	if (weft_region_is_tracked(region))
		weft_region_track_change(region, off, len);
	return r;
}

int weft_region_trim(struct weft_region *region, uint64_t off, uint64_t len)
{
	uint64_t first, last;
	int r = 0;

	assert_inside(region, off, len);
	if (region->read_only)
		return -EPERM;
	if (len == 0)
		return 0;
	if (region->backing == WEFT_BACKING_MEMORY) {
		r = memory_punch(region, off, len, &first, &last);
		if (weft_region_is_tracked(region))
			weft_region_track_change(region, off, len);
	} else {
		whole_blocks(region, off, len, &first, &last);
		if (first < last)
			r = file_allocate(region, DISCARD, first, last - first);
		if (weft_region_is_tracked(region))
			weft_region_track_change(region, off, len);
	}
	return r == -EIO ? r : 0;
}

static struct weft_extent find_extent(const struct weft_region *region, uint64_t off, uint64_t len)
{
	struct weft_extent data = {len, false};
	/* These calls move the file offset, which nothing uses. */
	off_t next = lseek(region->fd, (off_t)off, SEEK_DATA);

	if (next < 0)
		return errno == ENXIO ? (struct weft_extent){len, true} : data;
	if ((uint64_t)next > off)
		return (struct weft_extent){weft_min((uint64_t)next - off, len), true};
	next = lseek(region->fd, (off_t)off, SEEK_HOLE);
	if (next < 0 || (uint64_t)next <= off)
		return data;
	return (struct weft_extent){weft_min((uint64_t)next - off, len), false};
}

struct weft_extent weft_region_extent(struct weft_region *region, uint64_t off, uint64_t len)
{
	struct weft_extent extent = {len, false};

	assert_inside(region, off, len);
	if (region->backing == WEFT_BACKING_MEMORY)
		return atomic_load(&region->punched) ? find_extent(region, off, len) : extent;
	/* Unknown parts count as data, so that somebody reads them, and sees the error. */
	if (!region_enter(region) && region_file_check(region) == 0)
		extent = find_extent(region, off, len);
	region_leave(region);
	return extent;
}

int weft_region_begin_epoch(struct weft_region *region)
{
	const uint64_t epoch = weft_random_name();

	if (region->backing == WEFT_BACKING_FILE)
		return region_mark_begin_epoch(region, epoch);
	/* With one store: whoever finds the header finds either. */
	__atomic_store_n(&region->header->next_epoch, epoch, __ATOMIC_SEQ_CST);
	region->epoch = epoch;
	return 0;
}

int weft_region_note_table(struct weft_region *region,
	const struct weft_generation table[WEFT_NR_GENERATIONS], const struct weft_stripe *stripe,
	uint64_t seq, uint32_t lease_ms)
{
	if (region->promise_path)
		return region_note_promises(region, table, seq, lease_ms);
	return region->read_only ? 0 : region_mark_note_table(region, table, stripe, seq, lease_ms);
}
