/* SPDX-License-Identifier: MIT */
/*
 * How units come into the map and leave it.  Under the map's lock, which a move releases: the
 * frame's state says meanwhile that it moves.
 *
 * Units that follow one another go together if their frames do: then the pages of all lie side by
 * side, and one system call moves them.  A call that cannot have all is made again for each.
 */
#include <errno.h>

#include "nbd-bridge/library/map-private.h"

enum { EVICT_TRIES = 8 };

/* ---- into the map ---- */

void map_settle(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	if (f->state == FRAME_STAGED && !f->dirty && !f->writing && !f->copying && !f->list)
		map_list_add(m, &m->clean, frame);
	map_changed(m, frame);
}

static void become_resident(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	f->state = FRAME_RESIDENT;
	f->unsure = !m->read_only;
	map_list_add(m, &m->resident, frame);
}

/* r: what came of it. */
static void was_shown(struct weft_map *m, uint32_t frame, int r)
{
	struct map_frame *f = &m->frames[frame];

	if (r == 0) {
		become_resident(m, frame);
	} else {
		/* Somebody has put pages there.  Nobody who waits may wait for ever. */
		f->state = FRAME_STAGED;
		map_poison(m, f->unit);
		m->counts.poisoned++;
		map_settle(m, frame);
	}
	map_changed(m, frame);
}

static void poison_staged(struct weft_map *m, uint32_t frame)
{
	m->frames[frame].wanted = false;
	map_poison(m, m->frames[frame].unit);
	map_settle(m, frame);
}

void map_bring_back(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	int results[MAP_RUN_MAX];

	for (uint32_t i = 0; i < nr && m->lost; i++)
		poison_staged(m, frame + i);
	if (m->lost)
		return;
	for (uint32_t i = 0; i < nr; i++) {
		map_list_remove(m, frame + i);
		m->frames[frame + i].wanted = false;
		m->frames[frame + i].hashed = 0;
		m->frames[frame + i].state = FRAME_RETURNING;
	}
	pthread_mutex_unlock(&m->lock);
	int r = m->mode->show(m, frame, nr);
	for (uint32_t i = 0; i < nr; i++)
		results[i] = r < 0 && nr > 1 ? m->mode->show(m, frame + i, 1) : r;
	pthread_mutex_lock(&m->lock);
	for (uint32_t i = 0; i < nr; i++)
		was_shown(m, frame + i, results[i]);
}

/* ---- out of it ---- */

/* Nobody needs what the slot has: frees its memory, where others do not use it. */
static void drop(struct weft_map *m, uint32_t frame)
{
	if (!m->mode->drop)
		return;
	pthread_mutex_unlock(&m->lock);
	m->mode->drop(m, frame);
	m->frames[frame].warm = false;
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
	map_changed(m, frame);
}

static int stay(struct weft_map *m, uint32_t frame, int error)
{
	struct map_frame *f = &m->frames[frame];

	become_resident(m, frame);
	if (error == -EBUSY)
		m->counts.pinned++;
	if (f->wanted)
		map_wake(m, f->unit);
	f->wanted = false;
	map_changed(m, frame);
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

/* What is known of a unit on its way out of the map. */
struct leaving {
	uint64_t doubt;  /* grains whose hashes have to be asked */
	uint64_t hashed; /* those that were */
	uint64_t written;
	int r; /* what came of it */
};

/* Out of the map.  0, or -errno. */
static int hide(struct weft_map *m, uint32_t frame, uint32_t nr, struct leaving *units)
{
	uint64_t written[MAP_RUN_MAX] = {0};
	int r = m->mode->hide(m, frame, nr, written);

	for (uint32_t i = 0; i < nr && r == 0 && m->mode->keeps; i++) {
		units[i].hashed = units[i].doubt & ~written[i];
		units[i].written = written[i] |
			map_differing(m, frame + i, units[i].hashed, map_slot(m, frame + i));
	}
	return r;
}

/* As map_evict_frame(). */
static int was_hidden(struct weft_map *m, uint32_t frame, const struct leaving *unit)
{
	struct map_frame *f = &m->frames[frame];

	if (unit->r < 0)
		return stay(m, frame, unit->r);
	m->counts.evicted++;
	if (!m->mode->keeps) {
		free_frame(m, frame);
		return 0;
	}
	f->state = FRAME_STAGED;
	f->warm = true;
	f->unsure = false;
	f->hashed = unit->hashed;
	/* Nobody knows for how long: whoever waits for older dirt waits for this. */
	map_mark_dirty(m, frame, unit->written & map_unit_grains(m, f->unit), 0);
	m->counts.evicted_dirty += f->dirty != 0;
	if (f->wanted || m->lost) {
		map_bring_back(m, frame, 1);
		return 1;
	}
	if (f->dirty)
		map_make_urgent(m, frame);
	map_settle(m, frame);
	return f->dirty || f->writing ? 1 : 0;
}

/*
 * The same of frames that could not leave together.  Some pages may have left and come back, and
 * look as if they had been written: the hashes say.
 */
static void hide_each(struct weft_map *m, uint32_t frame, uint32_t nr, struct leaving *units)
{
	pthread_mutex_lock(&m->lock);
	for (uint32_t i = 0; i < nr; i++)
		m->frames[frame + i].unsure = !m->read_only;
	pthread_mutex_unlock(&m->lock);
	for (uint32_t i = 0; i < nr; i++) {
		units[i].doubt = doubtful(m, &m->frames[frame + i]);
		units[i].r = hide(m, frame + i, 1, &units[i]);
	}
}

/* Returns what became of the last. */
static int evict(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	struct leaving units[MAP_RUN_MAX];
	int r;

	for (uint32_t i = 0; i < nr; i++) {
		units[i] = (struct leaving){.doubt = doubtful(m, &m->frames[frame + i])};
		map_list_remove(m, frame + i);
		m->frames[frame + i].state = FRAME_LEAVING;
	}
	pthread_mutex_unlock(&m->lock);
	r = hide(m, frame, nr, units);
	if (r < 0 && nr > 1)
		hide_each(m, frame, nr, units);
	else
		for (uint32_t i = 0; i < nr; i++)
			units[i].r = r;
	pthread_mutex_lock(&m->lock);
	for (uint32_t i = 0; i < nr; i++)
		r = was_hidden(m, frame + i, &units[i]);
	return r;
}

int map_evict_frame(struct weft_map *m, uint32_t frame)
{
	return evict(m, frame, 1);
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

static bool is_victim(const struct weft_map *m, uint32_t frame, uint64_t unit)
{
	const struct map_frame *f = &m->frames[frame];

	return frame < m->nr_frames && f->state == FRAME_RESIDENT && !f->copying && f->unit == unit;
}

/* Evicts the frame and its neighbours, which came when it came: nr at most.  How many. */
static uint32_t evict_run(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	const uint64_t unit = m->frames[frame].unit;
	uint32_t before = 0, after = 1;

	nr = weft_min(nr, m->run_max);
	while (before + 1 < nr && frame > before && unit > before &&
		is_victim(m, frame - before - 1, unit - before - 1))
		before++;
	while (before + after < nr && is_victim(m, frame + after, unit + after))
		after++;
	evict(m, frame - before, before + after);
	return before + after;
}

void map_make_room(struct weft_map *m, uint32_t nr)
{
	for (uint32_t done = 0; done < nr && m->free.nr + m->clean.nr < nr;) {
		uint32_t frame = find_victim(m);

		if (frame == MAP_NO_FRAME)
			return;
		done += evict_run(m, frame, nr - m->free.nr - m->clean.nr);
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

static void take(struct weft_map *m, uint32_t frame, uint64_t unit)
{
	struct map_frame *f = &m->frames[frame];

	map_list_remove(m, frame);
	*f = (struct map_frame){
		.state = FRAME_FETCHING, .unit = (uint32_t)unit, .warm = f->warm};
	m->units[unit] = frame + 1;
}

/* After the contents were lost nothing is fetched: nobody would wait for the end of that. */
static bool is_to_be_had(const struct weft_map *m, uint64_t unit)
{
	return unit < m->nr_units && m->units[unit] == 0 && !m->lost;
}

uint32_t map_take_frame(struct weft_map *m, uint64_t unit, bool *ret_absent)
{
	find_room(m);
	*ret_absent = is_to_be_had(m, unit);
	uint32_t frame = m->free.first;
	if (!*ret_absent || frame == MAP_NO_FRAME)
		return MAP_NO_FRAME;
	take(m, frame, unit);
	map_keep_room(m);
	return frame;
}

static bool is_at_hand(const struct weft_map *m, uint32_t frame)
{
	return frame < m->nr_frames &&
		(m->frames[frame].state == FRAME_FREE || m->frames[frame].list == &m->clean);
}

/* Frames before this one would be left over alone. */
static uint32_t begin_of_room(const struct weft_map *m, uint32_t frame, uint32_t nr)
{
	for (uint32_t i = 1; i < nr && frame > 0 && is_at_hand(m, frame - 1); i++)
		frame--;
	return frame;
}

/* Frames side by side are free, if they are at hand.  May release the lock. */
static void free_some(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	for (; nr > 0 && is_at_hand(m, frame); nr--, frame++)
		if (m->frames[frame].state == FRAME_STAGED)
			map_empty_frame(m, frame);
}

static bool can_take(const struct weft_map *m, uint32_t frame, uint64_t unit)
{
	return frame < m->nr_frames && m->frames[frame].state == FRAME_FREE &&
		is_to_be_had(m, unit);
}

/* How many units from this one on are absent, of nr: one at least counts. */
static uint32_t nr_absent(const struct weft_map *m, uint64_t unit, uint32_t nr)
{
	uint32_t n = 1;

	while (n < nr && is_to_be_had(m, unit + n))
		n++;
	return n;
}

uint32_t map_take_run(struct weft_map *m, uint64_t unit, uint32_t nr, uint32_t *ret_nr,
	bool *ret_absent)
{
	*ret_nr = 0;
	find_room(m);
	nr = nr_absent(m, unit, nr);
	uint32_t frame = m->free.nr > 0 ? begin_of_room(m, m->free.first, nr) : MAP_NO_FRAME;
	if (frame != MAP_NO_FRAME && nr > 1)
		free_some(m, frame, nr);
	/* Nobody may see one of them before all are as the caller wants them. */
	if (!can_take(m, frame, unit))
		frame = m->free.first;
	for (; *ret_nr < nr && can_take(m, frame + *ret_nr, unit + *ret_nr); ++*ret_nr)
		take(m, frame + *ret_nr, unit + *ret_nr);
	map_keep_room(m);
	*ret_absent = *ret_nr > 0 || is_to_be_had(m, unit);
	return *ret_nr > 0 ? frame : MAP_NO_FRAME;
}

void map_put_frame(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	drop(m, frame);
	m->units[f->unit] = 0;
	f->state = FRAME_FREE;
	map_list_add(m, &m->free, frame);
	map_changed(m, frame);
}

/* The bytes are in no slot, so that they cannot be staged: what cannot be shown is SIGBUS. */
static void show_copy(struct weft_map *m, uint32_t frame, const uint8_t *bytes)
{
	struct map_frame *f = &m->frames[frame];
	const uint64_t unit = f->unit;

	f->wanted = false;
	f->state = FRAME_RETURNING;
	pthread_mutex_unlock(&m->lock);
	int r = m->mode->copy(m, frame, bytes);
	pthread_mutex_lock(&m->lock);
	if (r < 0) {
		map_put_frame(m, frame);
		map_fail_unit(m, unit, r);
		return;
	}
	become_resident(m, frame);
	map_changed(m, frame);
}

/* The contents are gone, and these were on their way. */
static void fetched_in_vain(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		const uint64_t unit = m->frames[frame + i].unit;

		map_put_frame(m, frame + i);
		map_fail_unit(m, unit, m->lost);
	}
}

/* Until then they are on their way to everybody else. */
static void show_fetched(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		m->frames[frame + i].state = FRAME_STAGED;
	if (nr > 0)
		map_bring_back(m, frame, nr);
}

void map_fetched(struct weft_map *m, uint32_t frame, uint32_t nr, const uint8_t *elsewhere)
{
	struct map_frame *first = &m->frames[frame];

	m->counts.fetched += nr;
	for (uint32_t i = 0; i < nr; i++)
		m->counts.read_bytes += map_unit_data(m, first[i].unit);
	if (!m->read_only) {
		pthread_mutex_unlock(&m->lock);
		for (uint32_t i = 0; i < nr; i++)
			map_hash(m, frame + i, map_unit_grains(m, first[i].unit),
				elsewhere ? elsewhere : map_slot(m, frame + i));
		pthread_mutex_lock(&m->lock);
	}
	if (m->lost) {
		fetched_in_vain(m, frame, nr);
		return;
	}
	if (elsewhere) {
		show_copy(m, frame, elsewhere);
		return;
	}
	uint32_t stays = 0;
	while (stays < nr && (!first[stays].stays_staged || first[stays].wanted))
		stays++;
	if (stays < nr) {
		first[stays].state = FRAME_STAGED;
		map_settle(m, frame + stays);
	}
	show_fetched(m, frame, stays);
	if (stays + 1 < nr)
		show_fetched(m, frame + stays + 1, nr - stays - 1);
}

void map_fail_unit(struct weft_map *m, uint64_t unit, int error)
{
	/*
	 * Whoever waits finds the poison before it is gone again: else it would wait once more.  So
	 * the next look leaves this unit as it is, and is not put off for it.
	 */
	m->units[unit] = MAP_POISONED_NOW;
	if (m->nr_poisoned++ == 0)
		m->heal_ns = weft_now_ns() + MAP_HEAL_NS;
	m->counts.poisoned++;
	map_poison(m, unit);
	pthread_cond_broadcast(&m->changed);
}
