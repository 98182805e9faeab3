/* SPDX-License-Identifier: MIT */
/*
 * Frames: which unit has one, where its pages lie, and how they move.  Under the map's lock, which
 * a move releases: the frame's state says meanwhile that it moves.
 */
#include <errno.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h> /* the fastest that the processor has */
#endif

#include "nbd-bridge/library/map-private.h"

enum { EVICT_TRIES = 8 };

void map_tell_pump(struct weft_map *m)
{
	struct lane_drive *drive;

	atomic_fetch_add(&m->news, 1);
	if (m->waits_here)
		pthread_cond_signal(&m->news_cond);
	drive = atomic_load(&m->waits_at);
	if (drive)
		lane_drive_counted(drive, false);
}

/* ---- the handle ---- */

bool library_is_mapped(struct weft *w, const void *buf, uint64_t len)
{
	const uintptr_t from = (uintptr_t)buf;
	bool found = false;

	if (atomic_load_explicit(&w->nr_maps, memory_order_relaxed) == 0)
		return false;
	pthread_mutex_lock(&w->lock);
	for (const struct weft_map *m = w->maps; m; m = m->next)
		found |= from < (uintptr_t)m->base + m->map_bytes &&
			from + len > (uintptr_t)m->base;
	pthread_mutex_unlock(&w->lock);
	return found;
}

/* ---- units ---- */

uint64_t map_unit_grains(const struct weft_map *m, uint64_t unit)
{
	uint64_t nr = (map_unit_bytes(m, unit) + m->grain_bytes - 1) / m->grain_bytes;

	return nr >= MAP_MASK_BITS ? UINT64_MAX : (UINT64_C(1) << nr) - 1;
}

uint32_t map_frame_of(const struct weft_map *m, uint64_t unit)
{
	uint32_t at = m->units[unit];

	return at == 0 || at >= MAP_HEALING ? MAP_NO_FRAME : at - 1;
}

/* ---- lists ---- */

void map_list_init(struct map_list *list)
{
	*list = (struct map_list){MAP_NO_FRAME, MAP_NO_FRAME, 0};
}

void map_list_add(struct weft_map *m, struct map_list *list, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	f->list = list;
	f->next = MAP_NO_FRAME;
	f->prev = list->last;
	if (list->last == MAP_NO_FRAME)
		list->first = frame;
	else
		m->frames[list->last].next = frame;
	list->last = frame;
	list->nr++;
}

void map_list_remove(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];
	struct map_list *list = f->list;

	if (!list)
		return;
	if (f->prev == MAP_NO_FRAME)
		list->first = f->next;
	else
		m->frames[f->prev].next = f->next;
	if (f->next == MAP_NO_FRAME)
		list->last = f->prev;
	else
		m->frames[f->next].prev = f->prev;
	list->nr--;
	f->list = NULL;
}

/* ---- dirt ---- */

static struct map_list *dirty_list(struct weft_map *m, const struct map_frame *f)
{
	return f->urgent ? &m->urgent : &m->aged;
}

static void add_dirty(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];
	struct map_list *list = dirty_list(m, f);

	f->in_dirty = true;
	f->dirty_next = MAP_NO_FRAME;
	f->dirty_prev = list->last;
	if (list->last == MAP_NO_FRAME)
		list->first = frame;
	else
		m->frames[list->last].dirty_next = frame;
	list->last = frame;
	list->nr++;
}

void map_undirty(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];
	struct map_list *list = dirty_list(m, f);

	if (!f->in_dirty)
		return;
	if (f->dirty_prev == MAP_NO_FRAME)
		list->first = f->dirty_next;
	else
		m->frames[f->dirty_prev].dirty_next = f->dirty_next;
	if (f->dirty_next == MAP_NO_FRAME)
		list->last = f->dirty_prev;
	else
		m->frames[f->dirty_next].dirty_prev = f->dirty_prev;
	list->nr--;
	f->in_dirty = false;
}

void map_make_urgent(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	if (f->in_dirty && f->urgent)
		return;
	map_undirty(m, frame);
	f->urgent = true;
	/* What is under way comes first: the end of that WRITE adds the frame again. */
	if (f->dirty & ~f->writing)
		add_dirty(m, frame);
}

void map_mark_dirty(struct weft_map *m, uint32_t frame, uint64_t grains, uint64_t seq)
{
	struct map_frame *f = &m->frames[frame];

	if (!grains)
		return;
	m->written[f->unit] |= grains;
	f->dirty_seq = f->dirty ? weft_min(f->dirty_seq, seq) : seq;
	if (!f->dirty)
		f->dirty_ns = weft_now_ns();
	m->nr_dirty_grains += (unsigned)__builtin_popcountll(grains & ~f->dirty);
	f->dirty |= grains;
	if (f->list == &m->clean)
		map_list_remove(m, frame);
	if (f->in_dirty)
		return;
	f->urgent |= f->state == FRAME_STAGED;
	if (f->dirty & ~f->writing)
		add_dirty(m, frame);
}

uint64_t map_hash_of(const struct weft_map *m, const uint8_t *bytes, uint64_t len)
{
	return XXH3_64bits_withSeed(bytes, len, m->hash_seed);
}

static uint64_t hash_grain(const struct weft_map *m, uint32_t frame, unsigned grain,
	const uint8_t *bytes)
{
	uint64_t at = grain * m->grain_bytes, whole = map_unit_bytes(m, m->frames[frame].unit);

	return map_hash_of(m, bytes + at, weft_min(m->grain_bytes, whole - at));
}

void map_hash(struct weft_map *m, uint32_t frame, uint64_t grains, const uint8_t *bytes)
{
	uint64_t *hashes = m->hashes + (uint64_t)frame * m->grains;

	for (; grains; grains &= grains - 1) {
		unsigned i = (unsigned)__builtin_ctzll(grains);

		hashes[i] = hash_grain(m, frame, i, bytes);
	}
}

uint64_t map_differing(struct weft_map *m, uint32_t frame, uint64_t grains, const uint8_t *bytes)
{
	const uint64_t *hashes = m->hashes + (uint64_t)frame * m->grains;
	uint64_t differing = 0;

	for (; grains; grains &= grains - 1) {
		unsigned i = (unsigned)__builtin_ctzll(grains);

		if (hashes[i] != hash_grain(m, frame, i, bytes))
			differing |= UINT64_C(1) << i;
	}
	return differing;
}

/* ---- moves ---- */

void map_settle(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	if (f->state == FRAME_STAGED && !f->dirty && !f->writing && !f->copying && !f->list)
		map_list_add(m, &m->clean, frame);
	pthread_cond_broadcast(&m->changed);
}

void map_bring_back(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	f->wanted = false;
	if (m->lost) {
		map_poison(m, f->unit);
		map_settle(m, frame);
		return;
	}
	map_list_remove(m, frame);
	f->state = FRAME_RETURNING;
	pthread_mutex_unlock(&m->lock);
	int r = m->mode->show(m, frame);
	pthread_mutex_lock(&m->lock);
	if (r == 0) {
		f->state = FRAME_RESIDENT;
		f->unsure = !m->read_only;
		map_list_add(m, &m->resident, frame);
	} else {
		/* Somebody has put pages there.  Nobody who waits may wait for ever. */
		f->state = FRAME_STAGED;
		map_poison(m, f->unit);
		m->counts.poisoned++;
		map_settle(m, frame);
	}
	pthread_cond_broadcast(&m->changed);
}

/* Nobody needs what the slot has: frees its memory, where others do not use it. */
static void drop(struct weft_map *m, uint32_t frame)
{
	if (!m->mode->drop)
		return;
	pthread_mutex_unlock(&m->lock);
	m->mode->drop(m, frame);
	pthread_mutex_lock(&m->lock);
}

/* The pages are gone from the map, and the slot does not have them. */
static void free_frame(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	m->units[f->unit] = 0;
	f->state = FRAME_FREE;
	map_list_add(m, &m->free, frame);
	if (f->wanted || m->lost)
		map_wake(m, f->unit); /* and it faults again */
	f->wanted = false;
}

static int stay(struct weft_map *m, uint32_t frame, int error)
{
	struct map_frame *f = &m->frames[frame];

	f->state = FRAME_RESIDENT;
	f->unsure = !m->read_only;
	map_list_add(m, &m->resident, frame);
	if (error == -EBUSY)
		m->counts.pinned++;
	if (f->wanted)
		map_wake(m, f->unit);
	f->wanted = false;
	pthread_cond_broadcast(&m->changed);
	return error;
}

/*
 * The grains of a unit that leaves whose hashes have to be asked.  A unit that is protected, and
 * was not written since it was looked at, has none; but a page that moves loses its protection.
 */
static uint64_t doubtful(const struct weft_map *m, const struct map_frame *f)
{
	if (m->read_only || (m->mode->shares && !f->unsure))
		return 0;
	return map_unit_grains(m, f->unit);
}

int map_evict_frame(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];
	uint64_t written = 0, all = map_unit_grains(m, f->unit), doubt = doubtful(m, f);

	map_list_remove(m, frame);
	f->state = FRAME_LEAVING;
	pthread_mutex_unlock(&m->lock);
	int r = m->mode->hide(m, frame, &written);
	if (r == 0 && m->mode->keeps)
		written |= map_differing(m, frame, doubt & ~written, map_slot(m, frame));
	pthread_mutex_lock(&m->lock);
	if (r < 0)
		return stay(m, frame, r);
	m->counts.evicted++;
	if (!m->mode->keeps) {
		free_frame(m, frame);
		pthread_cond_broadcast(&m->changed);
		return 0;
	}
	f->state = FRAME_STAGED;
	f->unsure = false;
	/* Nobody knows for how long: whoever waits for older dirt waits for this. */
	map_mark_dirty(m, frame, written & all, 0);
	m->counts.evicted_dirty += f->dirty != 0;
	if (f->wanted || m->lost) {
		map_bring_back(m, frame);
		return 1;
	}
	if (f->dirty)
		map_make_urgent(m, frame);
	map_settle(m, frame);
	return f->dirty || f->writing ? 1 : 0;
}

/* The oldest that can be evicted; those in front that cannot go to the end. */
static uint32_t find_victim(struct weft_map *m)
{
	for (uint32_t i = weft_min(m->resident.nr, EVICT_TRIES); i > 0; i--) {
		uint32_t frame = m->resident.first;

		if (!m->frames[frame].copying)
			return frame;
		map_list_remove(m, frame);
		map_list_add(m, &m->resident, frame);
	}
	return MAP_NO_FRAME;
}

void map_make_room(struct weft_map *m, uint32_t nr)
{
	for (uint32_t i = 0; i < nr && m->free.nr + m->clean.nr < nr; i++) {
		uint32_t frame = find_victim(m);

		if (frame == MAP_NO_FRAME)
			return;
		map_evict_frame(m, frame);
		/* They can be had when they are at the donor: more of them help nobody now. */
		if (m->urgent.nr > nr)
			return;
	}
}

void map_empty_frame(struct weft_map *m, uint32_t frame)
{
	map_list_remove(m, frame);
	m->frames[frame].state = FRAME_LEAVING;
	drop(m, frame);
	free_frame(m, frame);
}

/* Makes sure that there is a free frame, if that can be. */
static void find_room(struct weft_map *m)
{
	for (unsigned i = 0; m->free.nr == 0 && i < EVICT_TRIES; i++) {
		uint32_t victim;

		if (m->clean.nr > 0)
			map_empty_frame(m, m->clean.first);
		else if ((victim = find_victim(m)) != MAP_NO_FRAME)
			map_evict_frame(m, victim);
		else
			return;
	}
}

uint32_t map_take_frame(struct weft_map *m, uint64_t unit, bool *ret_absent)
{
	find_room(m);
	*ret_absent = m->units[unit] == 0;
	uint32_t frame = m->free.first;
	if (!*ret_absent || frame == MAP_NO_FRAME)
		return MAP_NO_FRAME;
	struct map_frame *f = &m->frames[frame];
	map_list_remove(m, frame);
	*f = (struct map_frame){.state = FRAME_FETCHING, .unit = (uint32_t)unit};
	m->units[unit] = frame + 1;
	return frame;
}

void map_put_frame(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	drop(m, frame);
	m->units[f->unit] = 0;
	f->state = FRAME_FREE;
	map_list_add(m, &m->free, frame);
	pthread_cond_broadcast(&m->changed);
}

void map_fetched(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	m->counts.fetched++;
	m->counts.read_bytes += map_unit_data(m, f->unit);
	if (!m->read_only) {
		pthread_mutex_unlock(&m->lock);
		map_hash(m, frame, map_unit_grains(m, f->unit), map_slot(m, frame));
		pthread_mutex_lock(&m->lock);
	}
	if (m->lost) {
		uint64_t unit = f->unit;

		map_put_frame(m, frame);
		map_fail_unit(m, unit, m->lost);
		return;
	}
	f->state = FRAME_STAGED;
	if (f->wanted || !f->stays_staged)
		map_bring_back(m, frame);
	else
		map_settle(m, frame);
}

void map_fail_unit(struct weft_map *m, uint64_t unit, int error)
{
	m->units[unit] = MAP_POISONED;
	m->nr_poisoned++;
	m->counts.poisoned++;
	map_poison(m, unit);
	pthread_cond_broadcast(&m->changed);
}
