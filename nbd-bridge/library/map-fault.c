/* SPDX-License-Identifier: MIT */
/*
 * A page fault of a map, on a handler (map-handlers.c), which reads what is missing itself, and
 * drives the lane.  Nothing here touches the map or allocates.
 */
#include <string.h>
#include <unistd.h>

#include "nbd-bridge/library/map-private.h"

enum { FULL_PAUSE_US = 200 };

/* ---- a unit that is absent; under the lock ---- */

bool map_demand(struct weft_map *m, uint64_t unit)
{
	for (unsigned i = 0; i < m->demand_nr; i++)
		if (m->demand[(m->demand_first + i) % MAP_WANTS].unit == unit)
			return true;
	if (m->demand_nr == MAP_WANTS)
		return false;
	m->demand[(m->demand_first + m->demand_nr++) % MAP_WANTS] =
		(struct map_demand){.unit = (uint32_t)unit, .since_ns = weft_now_ns()};
	map_tell_pump(m);
	return true;
}

/* Others do it; or, when there are too many, the thread faults again. */
static void leave_to_pump(struct weft_map *m, uint64_t unit)
{
	m->counts.waits++;
	if (map_demand(m, unit))
		return;
	pthread_mutex_unlock(&m->lock);
	usleep(FULL_PAUSE_US);
	map_wake(m, unit);
	pthread_mutex_lock(&m->lock);
}

static void read_unit(struct map_handler *handler, uint32_t frame)
{
	struct weft_map *m = handler->m;
	const uint64_t unit = m->frames[frame].unit, len = map_unit_data(m, unit);
	const bool elsewhere = handler->bounce && !m->frames[frame].warm;
	uint8_t *to = elsewhere ? handler->bounce : map_slot(m, frame);

	m->nr_direct++;
	pthread_mutex_unlock(&m->lock);
	memset(to + len, 0, map_unit_bytes(m, unit) - len);
	int r = library_call_from(m->w, m->slots, TP_READ, to, m->off + map_unit_off(m, unit), len);
	pthread_mutex_lock(&m->lock);
	m->nr_direct--;
	if (r == 0) {
		map_fetched(m, frame, 1, elsewhere ? to : NULL);
		return;
	}
	map_put_frame(m, frame);
	map_fail_unit(m, unit, r);
	map_tell_pump(m);
}

static void fetch(struct map_handler *handler, uint64_t unit)
{
	struct weft_map *m = handler->m;
	bool absent = true;
	uint32_t frame = MAP_NO_FRAME;

	if (!handler->spare)
		frame = map_take_frame(m, unit, &absent);
	if (!absent) {
		map_wake(m, unit); /* and the thread faults again, if it has to */
		return;
	}
	map_want_around(m, unit);
	if (frame == MAP_NO_FRAME) {
		leave_to_pump(m, unit);
		return;
	}
	m->frames[frame].wanted = true;
	read_unit(handler, frame);
}

/* ---- a unit that has a frame; under the lock ---- */

static void show_again(struct weft_map *m, uint32_t frame, uint64_t address)
{
	struct map_frame *f = &m->frames[frame];

	if (f->ahead) {
		f->ahead = false;
		m->counts.ahead_used++;
	}
	switch ((enum frame_state)f->state) {
	case FRAME_FETCHING:
	case FRAME_LEAVING:
		f->wanted = true;
		break;
	case FRAME_STAGED:
		f->wanted = f->copying;
		m->counts.returned++;
		if (!f->copying)
			map_bring_back(m, frame, 1);
		break;
	case FRAME_RESIDENT:
		if (m->mode->shares)
			map_bring_back(m, frame, 1);
		else
			map_poison_page_that_is_gone(m, address);
		break;
	case FRAME_RETURNING:
	case FRAME_FREE:
		break;
	}
}

/* The first write since the unit was looked at; modes whose slots are the map's pages. */
static void let_write(struct weft_map *m, uint64_t unit)
{
	uint32_t frame = map_frame_of(m, unit);
	struct map_frame *f = frame == MAP_NO_FRAME ? NULL : &m->frames[frame];

	if (f && f->state == FRAME_LEAVING) {
		f->wanted = true;
		return;
	}
	if (f && (f->state == FRAME_RESIDENT || f->state == FRAME_RETURNING)) {
		f->unsure = true;
		map_protect(m, map_at(m, unit), map_unit_bytes(m, unit), false);
	}
	map_wake(m, unit);
}

void map_serve(struct map_handler *handler, uint64_t address, bool is_protected)
{
	struct weft_map *m = handler->m;
	uint64_t unit = (address - (uintptr_t)m->base) / m->unit_bytes;

	atomic_fetch_add(&m->nr_knocking, 1);
	pthread_mutex_lock(&m->lock);
	atomic_fetch_sub(&m->nr_knocking, 1);
	m->counts.faults++;
	if (is_protected)
		let_write(m, unit);
	else if (map_is_poisoned(m, unit))
		map_poison(m, unit);
	else if (m->units[unit] == MAP_HEALING)
		; /* whoever waits is woken then */
	else if (m->lost && m->units[unit] == 0)
		map_fail_unit(m, unit, m->lost);
	else if (m->lost && m->forced == map_frame_of(m, unit))
		map_poison_page_that_is_gone(m, address); /* the pump itself may wait here */
	else if (m->lost)
		map_lost_fault(m, unit);
	else {
		map_note_fault(m, unit);
		if (m->units[unit] == 0)
			fetch(handler, unit);
		else
			show_again(m, map_frame_of(m, unit), address);
	}
	pthread_mutex_unlock(&m->lock);
}
