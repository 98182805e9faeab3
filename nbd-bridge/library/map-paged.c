/* SPDX-License-Identifier: MIT */
/*
 * Maps whose pages move between the map and the slots, and the scan of page tables that tells what
 * was written.  Any thread; nothing here takes a lock, or faults in the map.
 *
 * The map's pages are caught when they are missing, and write-protected.  The slots are only
 * write-protected, since a MOVE goes into what is registered alone: a page that is missing there is
 * the kernel's affair, and no access of ours to a slot can wait for a handler.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/map-uapi.h"

/* ---- moving pages ---- */

enum {
	ENTRIES = 64,  /* of the page map at a time */
	REGIONS = 128, /* of one scan */
};

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
			map_pause(m, &nr_pauses);
		} else {
			uint64_t more = moved_all_the_same(m, to + done, from + done, bytes - done);

			done += more;
			unseen |= more > 0;
			error = more > 0 ? 0 : r;
		}
	}
	if (unseen)
		map_wake_range(m, to, bytes);
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

/* Into pages that are new: no other processor has to forget where they were. */
static int copy_run(struct weft_map *m, uint64_t unit, uint32_t nr, const uint8_t *from)
{
	uint64_t bytes = map_run_bytes(m, unit, nr), done = 0;
	unsigned nr_pauses = 0;
	int r = 0;

	while (done < bytes && r == 0) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)(map_at(m, unit) + done),
			.src = (uintptr_t)(from + done),
			.len = bytes - done,
		};

		r = ioctl(m->uffd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
		if (copy.copy > 0)
			done += (uint64_t)copy.copy;
		if (r == -EAGAIN) {
			r = 0;
			map_pause(m, &nr_pauses);
		}
	}
	if (r < 0)
		map_take_pages(m, unit, nr);
	return r;
}

static int paged_copy(struct weft_map *m, uint32_t frame, const uint8_t *from)
{
	return copy_run(m, m->frames[frame].unit, 1, from);
}

/* The slots keep the bytes only if they cannot be shown. */
static int show_by_copy(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	int r = copy_run(m, m->frames[frame].unit, nr, map_slot(m, frame));

	if (r == 0)
		map_drop_slots(m, frame, nr);
	return r;
}

/*
 * The pages are protected when somebody looks at them, not while a thread waits for them.  A page
 * of a slot that the kernel holds, or shares with others, stays there: its bytes are copied.
 */
static int paged_show(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	uint64_t unit = m->frames[frame].unit;
	int r = move(m, map_at(m, unit), map_slot(m, frame), map_run_bytes(m, unit, nr));

	return r == -EBUSY && nr == 1 ? show_by_copy(m, frame, nr) : r;
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

/* Pages that were not protected say nothing. */
static int look_what_was_written(struct weft_map *m, uint32_t frame, uint64_t *ret)
{
	uint64_t unit = m->frames[frame].unit;
	struct scan scan = {.m = m, .fn = note_grains, .first = map_at(m, unit)};
	int r = m->frames[frame].unsure
		? 0
		: scan_range(&scan, scan.first, map_unit_bytes(m, unit));

	*ret = scan.grains;
	return r;
}

static int paged_hide(struct weft_map *m, uint32_t frame, uint32_t nr, uint64_t *ret_written)
{
	uint64_t unit = m->frames[frame].unit;
	int r = 0;

	for (uint32_t i = 0; i < nr && r == 0; i++)
		r = look_what_was_written(m, frame + i, &ret_written[i]);
	return r == 0 ? move(m, map_slot(m, frame), map_at(m, unit), map_run_bytes(m, unit, nr))
		      : r;
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
	.copy = paged_copy,
};

/* ---- a map that is not written: pages that leave are dropped ---- */

static int read_only_hide(struct weft_map *m, uint32_t frame, uint32_t nr, uint64_t *ret_written)
{
	return map_take_pages(m, m->frames[frame].unit, nr);
}

const struct map_mode map_paged_read_only = {
	.name = "paged",
	.show = show_by_copy,
	.hide = read_only_hide,
	.copy = paged_copy,
};
