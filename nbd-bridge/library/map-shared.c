/* SPDX-License-Identifier: MIT */
/*
 * Maps whose pages lie in a memory file that is mapped twice: one mapping is the program's, and
 * watched, the other is the slots.  A unit's slot is its own place in the file.  A READ lands
 * there, UFFDIO_CONTINUE shows the same pages in the map, and taking them out of the map leaves
 * them where they are: nothing is copied or moved, and no write can be lost, since it goes to the
 * page that stays.  Any thread; nothing here takes a lock, or faults in the map.
 *
 * `compat`: bounded, for kernels without UFFDIO_MOVE.  A unit that has left the map and is at the
 * donor is cut out of the file when its frame is needed.
 * `resident`: the whole map may be here, and nothing leaves it; so the slots can be registered with
 * a transport, and pages may be huge.
 *
 * Writes are found by hashes.  Which units have to be looked at is known by write protection: a
 * unit is protected when it is looked at, and the first write to it is a fault, which makes it
 * unsure again.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/map-uapi.h"

/* Pages that are in the map stay, so that a unit of which some are there can be shown again. */
static int shared_show(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	const uint64_t unit = m->frames[frame].unit, bytes = map_run_bytes(m, unit, nr);
	uint64_t done = 0;
	unsigned nr_pauses = 0;
	int r = 0;

	while (done < bytes && r == 0) {
		struct uffdio_continue show = {
			.range = {(uintptr_t)(map_at(m, unit) + done), bytes - done},
		};

		r = ioctl(m->uffd, UFFDIO_CONTINUE, &show) < 0 ? -errno : 0;
		if (show.mapped > 0)
			done += (uint64_t)show.mapped;
		else if (r == -EEXIST)
			done += weft_page_bytes();
		else if (r == -EAGAIN)
			map_pause(m, &nr_pauses);
		if (r == -EEXIST || r == -EAGAIN)
			r = 0;
	}
	if (r < 0)
		map_take_pages(m, unit, nr);
	map_wake_range(m, map_at(m, unit), bytes);
	return r;
}

static int shared_hide(struct weft_map *m, uint32_t frame, uint32_t nr, uint64_t *ret_written)
{
	return map_take_pages(m, m->frames[frame].unit, nr);
}

static void compat_drop(struct weft_map *m, uint32_t frame)
{
	const uint64_t unit = m->frames[frame].unit;

	fallocate(m->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		(off_t)map_unit_off(m, unit), (off_t)map_unit_bytes(m, unit));
}

const struct map_mode map_compat = {
	.name = "compat",
	.keeps = true,
	.shares = true,
	.show = shared_show,
	.hide = shared_hide,
	.drop = compat_drop,
};

const struct map_mode map_resident = {
	.name = "resident",
	.keeps = true,
	.shares = true,
	.whole = true,
	.show = shared_show,
	.hide = shared_hide,
};
