/* SPDX-License-Identifier: MIT */
/*
 * Finding what was written, and waiting until it is at the donor.  Any thread that is no handler;
 * the pump writes.
 *
 * Dirt has a number, which goes up.  A caller of sync collects what was written so far, and waits
 * until none of its units has dirt with a number up to then, whether it waits to be written or is
 * under way.
 */
#include <errno.h>
#include <unistd.h>

#include "nbd-bridge/library/map-private.h"

enum { LET_SCAN_TRIES = 8, LET_SCAN_US = 20 };

/* ---- finding ---- */

static void mark(struct weft_map *m, uint64_t from, uint64_t to)
{
	pthread_mutex_lock(&m->lock);
	m->seq++;
	for (uint64_t unit = from / m->unit_bytes; unit * m->unit_bytes < to; unit++) {
		uint32_t frame = map_frame_of(m, unit);
		uint64_t off = map_unit_off(m, unit);

		/* A unit that has left meanwhile was looked at when it left. */
		if (frame == MAP_NO_FRAME || m->frames[frame].state == FRAME_FETCHING)
			continue;
		/* Its pages may just not have been protected yet: its bytes are looked at. */
		if (m->frames[frame].unsure || m->frames[frame].state == FRAME_RETURNING)
			continue;
		uint64_t first = from > off ? (from - off) / m->grain_bytes : 0;
		uint64_t last = (weft_min(to - off, m->unit_bytes) - 1) / m->grain_bytes;
		uint64_t grains = UINT64_MAX >> (MAP_MASK_BITS - 1 - (last - first)) << first;
		map_mark_dirty(m, frame, grains & map_unit_grains(m, unit), m->seq);
	}
	pthread_mutex_unlock(&m->lock);
}

/*
 * The kernel tells of a write once.  So a scan waits until what another has taken is marked: its
 * caller must find that, or would take the write for one that is at the donor.
 */
int map_collect(struct weft_map *m, uint64_t from, uint64_t to)
{
	if (m->read_only || m->mode->shares)
		return 0;
	atomic_fetch_add(&m->nr_to_scan, 1);
	pthread_mutex_lock(&m->scan_lock);
	atomic_fetch_sub(&m->nr_to_scan, 1);
	int r = map_scan(m, from, to, mark);
	pthread_mutex_unlock(&m->scan_lock);
	/* Who asks again at once would get the lock before the pump, which waits for it. */
	for (unsigned i = 0; i < LET_SCAN_TRIES && atomic_load(&m->nr_to_scan) > 0; i++)
		usleep(LET_SCAN_US);
	return r;
}

/* ---- waiting; under the lock ---- */

static bool is_moving(const struct map_frame *f)
{
	return f->state == FRAME_LEAVING || f->state == FRAME_RETURNING || f->copying;
}

/* Of nr grains from first on, those whose bytes are not as their hashes say, or cannot be read. */
static uint64_t differing_run(struct weft_map *m, uint32_t frame, unsigned first, unsigned nr)
{
	const uint64_t *hashes = m->hashes + (uint64_t)frame * m->grains;
	const uint64_t at = first * m->grain_bytes;
	const uint64_t bytes = weft_min(
		nr * m->grain_bytes, map_unit_bytes(m, m->frames[frame].unit) - at);
	uint64_t differing = 0;
	uint8_t buf[MAP_GRAIN_MAX];

	if (map_read(m, frame, at, buf, bytes) < 0) {
		/* The program may have dropped one of them. */
		for (unsigned i = 0; i < nr && nr > 1; i++)
			differing |= differing_run(m, frame, first + i, 1);
		return nr > 1 ? differing : UINT64_C(1) << first;
	}
	for (unsigned i = 0; i < nr; i++) {
		const uint64_t from = i * m->grain_bytes;

		if (map_hash_of(m, buf + from, weft_min(m->grain_bytes, bytes - from)) !=
			hashes[first + i])
			differing |= UINT64_C(1) << (first + i);
	}
	return differing;
}

/* Reads as many at a time as it has room for: each time is a system call. */
static uint64_t differing_in_map(struct weft_map *m, uint32_t frame, uint64_t grains)
{
	const unsigned max = (unsigned)(MAP_GRAIN_MAX / m->grain_bytes);
	uint64_t differing = 0;

	while (grains) {
		const unsigned first = (unsigned)__builtin_ctzll(grains);
		unsigned nr = 0;

		while (nr < max && first + nr < MAP_MASK_BITS && grains >> (first + nr) & 1) {
			grains &= ~(UINT64_C(1) << (first + nr));
			nr++;
		}
		differing |= differing_run(m, frame, first, nr);
	}
	return differing;
}

void map_look_at_bytes(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	if (f->state != FRAME_RESIDENT || !f->unsure || f->copying)
		return;
	const uint64_t unit = f->unit, grains = map_unit_grains(m, unit) & ~f->dirty;
	f->copying = true;
	f->unsure = false;
	pthread_mutex_unlock(&m->lock);
	/* A later write is a fault, or leaves a mark for the kernel's scan. */
	bool stays_unsure = !m->protects ||
		map_protect(m, map_at(m, unit), map_unit_bytes(m, unit), true) < 0;
	uint64_t differing = differing_in_map(m, frame, grains);
	pthread_mutex_lock(&m->lock);
	f->copying = false;
	f->unsure |= stays_unsure;
	map_mark_dirty(m, frame, differing, 0);
	map_changed(m, frame);
}

/* The frame of the unit once it does not move. */
static uint32_t resting(struct weft_map *m, uint64_t unit)
{
	uint32_t frame;

	while ((frame = map_frame_of(m, unit)) != MAP_NO_FRAME && is_moving(&m->frames[frame]))
		map_wait_for_change(m, frame);
	return frame;
}

/* The same, once all of its older dirt is known. */
static uint32_t settled(struct weft_map *m, uint64_t unit)
{
	uint32_t frame = resting(m, unit);

	if (frame == MAP_NO_FRAME || m->frames[frame].state != FRAME_RESIDENT ||
		!m->frames[frame].unsure)
		return frame;
	map_look_at_bytes(m, frame);
	return resting(m, unit);
}

static bool is_older(const struct map_frame *f, uint64_t seq)
{
	return (f->dirty && f->dirty_seq <= seq) || (f->writing && f->writing_seq <= seq);
}

/* All older dirt is known.  Another look would find newer dirt, for as long as somebody writes. */
static int wait_for_unit(struct weft_map *m, uint64_t unit, uint64_t seq, uint64_t nr_errors)
{
	for (;;) {
		uint32_t frame = resting(m, unit);

		if (frame == MAP_NO_FRAME || !is_older(&m->frames[frame], seq))
			return 0;
		if (m->lost)
			return m->lost;
		if (m->nr_write_errors != nr_errors)
			return m->write_error;
		if (m->frames[frame].dirty && !m->frames[frame].urgent) {
			map_make_urgent(m, frame);
			map_tell_pump(m);
		}
		map_wait_for_change(m, frame);
	}
}

int map_sync_units(struct weft_map *m, uint64_t first, uint64_t end)
{
	int r;

	if (m->read_only)
		return 0;
	r = map_collect(m, map_unit_off(m, first),
		weft_min(map_unit_off(m, end), m->map_bytes));
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	const uint64_t seq = m->seq, nr_errors = m->nr_write_errors;
	r = m->lost;
	for (uint64_t unit = first; unit < end && r == 0; unit++) {
		uint32_t frame = settled(m, unit);

		if (frame != MAP_NO_FRAME && m->frames[frame].dirty)
			map_make_urgent(m, frame);
		map_let_handlers_in(m);
	}
	m->retry_ns = 0;
	map_tell_pump(m);
	/* The last is at the donor last, and then nothing else is waited for. */
	for (uint64_t unit = end; unit > first && r == 0; unit--)
		r = wait_for_unit(m, unit - 1, seq, nr_errors);
	pthread_mutex_unlock(&m->lock);
	return r;
}

/* ---- what was written since somebody asked ---- */

/* Adds a run of grains; false: there is no room for it. */
static bool add_extent(struct weft_map_extent *extents, size_t nr, size_t *n, uint64_t off,
	uint64_t len)
{
	if (*n > 0 && extents[*n - 1].off + extents[*n - 1].len == off) {
		extents[*n - 1].len += len;
		return true;
	}
	if (*n == nr)
		return false;
	extents[(*n)++] = (struct weft_map_extent){.off = off, .len = len};
	return true;
}

static bool add_unit(struct weft_map *m, uint64_t unit, uint64_t from, bool resets,
	struct weft_map_extent *extents, size_t nr, size_t *n)
{
	const uint64_t off = map_unit_off(m, unit);

	for (uint64_t left = m->written[unit]; left; left &= left - 1) {
		uint64_t at = (unsigned)__builtin_ctzll(left) * m->grain_bytes;

		if (off + at + m->grain_bytes <= from)
			continue;
		if (!add_extent(extents, nr, n, off + at,
			    weft_min(m->grain_bytes, map_unit_data(m, unit) - at)))
			return false;
		if (resets)
			m->written[unit] &= ~(left & -left);
	}
	return true;
}

int64_t weft_map_dirty(struct weft_map *m, uint64_t from, struct weft_map_extent *extents,
	size_t nr, unsigned flags)
{
	size_t n = 0;
	int r = flags & ~(unsigned)WEFT_MAP_RESET || from > m->map_bytes ? -EINVAL
		: library_lane_in_completion                             ? -EDEADLK
									 : 0;

	if (r == 0)
		r = map_collect(m, map_unit_off(m, from / m->unit_bytes), m->map_bytes);
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	for (uint64_t unit = from / m->unit_bytes; unit < m->nr_units && !m->lost; unit++) {
		settled(m, unit);
		if (!add_unit(m, unit, from, flags & WEFT_MAP_RESET, extents, nr, &n))
			break;
		map_let_handlers_in(m);
	}
	r = m->lost;
	pthread_mutex_unlock(&m->lock);
	return r < 0 ? r : (int64_t)n;
}
