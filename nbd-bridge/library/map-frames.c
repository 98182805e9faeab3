/* SPDX-License-Identifier: MIT */
/*
 * Frames: which unit has one, the lists that they are in, and what of them is dirty.  Under the
 * map's lock.
 */
#include <unistd.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h> /* the fastest that the processor has */
#endif

#include "nbd-bridge/library/map-private.h"

enum {
	LET_IN_TRIES = 8, /* others are served by and by */
	LET_IN_US = 20,
};

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

/* ---- changes ---- */

/* Whoever waits is not woken for each of thousands of others: it would only look, and wait on. */
void map_changed(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	if (!f->awaited && m->nr_waiting == 0)
		return;
	f->awaited = false;
	pthread_cond_broadcast(&m->changed);
}

void map_wait_for_change(struct weft_map *m, uint32_t frame)
{
	m->frames[frame].awaited = true;
	pthread_cond_wait(&m->changed, &m->lock);
}

void map_let_handlers_in(struct weft_map *m)
{
	for (unsigned i = 0; i < LET_IN_TRIES && atomic_load(&m->nr_knocking) > 0; i++) {
		pthread_mutex_unlock(&m->lock);
		usleep(LET_IN_US);
		pthread_mutex_lock(&m->lock);
	}
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

/* ---- room ---- */

uint32_t map_wanted_room(const struct weft_map *m)
{
	return (uint32_t)weft_max(m->nr_frames / 8, 2);
}

static bool is_short_of_room(const struct weft_map *m)
{
	/* Where each unit can have a frame, nobody ever waits for one. */
	return m->nr_frames < m->nr_units && m->free.nr + m->clean.nr < map_wanted_room(m) / 2;
}

void map_keep_room(struct weft_map *m)
{
	if (m->wants_room || !is_short_of_room(m))
		return;
	m->wants_room = true;
	pthread_cond_signal(&m->room_cond);
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

	return map_hash_of(m, bytes, weft_min(m->grain_bytes, whole - at));
}

void map_hash(struct weft_map *m, uint32_t frame, uint64_t grains, const uint8_t *bytes)
{
	uint64_t *hashes = m->hashes + (uint64_t)frame * m->grains;

	for (; grains; grains &= grains - 1) {
		unsigned i = (unsigned)__builtin_ctzll(grains);

		hashes[i] = hash_grain(m, frame, i, bytes);
		bytes += m->grain_bytes;
	}
}

uint64_t map_differing(struct weft_map *m, uint32_t frame, uint64_t grains, const uint8_t *bytes)
{
	uint64_t *hashes = m->hashes + (uint64_t)frame * m->grains;
	uint64_t differing = 0;

	for (; grains; grains &= grains - 1) {
		unsigned i = (unsigned)__builtin_ctzll(grains);
		uint64_t hash = hash_grain(m, frame, i, bytes + i * m->grain_bytes);

		if (hashes[i] != hash)
			differing |= UINT64_C(1) << i;
		hashes[i] = hash;
	}
	return differing;
}
