/* SPDX-License-Identifier: MIT */
/*
 * What to fetch before it is asked for: faults that follow one another at one distance are a
 * stream.  Under the map's lock.
 *
 * Units that were fetched ahead and put into the map cause no fault.  So one of each lot stays out
 * of the map: the fault on it, which needs no network, tells that the stream goes on, and asks for
 * the next lot.  It is the one of the first group that lies where the last fault was in its own.
 */
#include "nbd-bridge/library/map-private.h"

enum {
	FIRST_WINDOW = 4,
	WINDOW_BYTES = 2 << 20,
	NEAR = 64, /* units between two faults of one stream */
};

static uint32_t window_max(const struct weft_map *m)
{
	uint64_t units = weft_min(WINDOW_BYTES / m->unit_bytes, m->nr_frames / 8);

	return (uint32_t)weft_max(units / m->around, 1);
}

bool map_want(struct weft_map *m, uint64_t unit, uint64_t nr, int64_t step, uint64_t stays)
{
	if (m->want_nr == MAP_WANTS)
		return false;
	m->wants[(m->want_first + m->want_nr++) % MAP_WANTS] =
		(struct map_want){.unit = unit, .nr = nr, .step = step, .stays = stays};
	map_tell_pump(m);
	return true;
}

void map_want_around(struct weft_map *m, uint64_t unit)
{
	const uint64_t first = unit / m->around * m->around;
	const uint64_t end = weft_min(first + m->around, m->nr_units);

	if (m->random)
		return;
	if (unit > first)
		map_want(m, first, unit - first, 1, MAP_NO_UNIT);
	if (unit + 1 < end)
		map_want(m, unit + 1, end - unit - 1, 1, MAP_NO_UNIT);
}

/* So many groups from this one on.  How many there was room for.  place: of who stays staged. */
static uint32_t want_groups(struct weft_map *m, uint64_t group, uint32_t nr, int64_t step,
	uint64_t place)
{
	uint64_t stays = group * m->around + place;
	uint32_t n = 0;

	if (step == 1 || m->around == 1) {
		const uint64_t units = (uint64_t)nr * m->around;

		return map_want(m, group * m->around, units, step, stays) ? nr : 0;
	}
	while (n < nr && map_want(m, group * m->around, m->around, 1, stays)) {
		stays = MAP_NO_UNIT;
		group += (uint64_t)step;
		n++;
	}
	return n;
}

/* How many steps of the stream lead to the unit; 0: none do. */
static uint64_t steps_to(const struct map_stream *s, uint64_t unit)
{
	int64_t distance = (int64_t)(unit - s->last);

	if (s->step == 0 || distance % s->step != 0 || distance / s->step <= 0)
		return 0;
	return (uint64_t)(distance / s->step);
}

static void go_ahead(struct weft_map *m, struct map_stream *s, uint64_t steps, uint64_t place)
{
	s->last += (uint64_t)((int64_t)steps * s->step);
	s->ahead = s->ahead > steps ? s->ahead - steps : 0;
	if (s->window > 0 && s->ahead >= s->window)
		return;
	s->window = (uint32_t)weft_min(
		s->window ? 2 * s->window : FIRST_WINDOW, window_max(m));
	uint64_t first = s->last + (uint64_t)((int64_t)(s->ahead + 1) * s->step);
	s->ahead += want_groups(m, first, s->window, s->step, place);
}

static struct map_stream *nearest(struct weft_map *m, uint64_t unit)
{
	struct map_stream *found = NULL;

	for (unsigned i = 0; i < MAP_STREAMS; i++) {
		struct map_stream *s = &m->streams[i];
		int64_t distance = (int64_t)(unit - s->last);

		if (s->used > 0 && distance >= -NEAR && distance <= NEAR &&
			(!found || s->used > found->used))
			found = s;
	}
	return found;
}

static struct map_stream *oldest(struct weft_map *m)
{
	struct map_stream *found = &m->streams[0];

	for (unsigned i = 1; i < MAP_STREAMS; i++)
		if (m->streams[i].used < found->used)
			found = &m->streams[i];
	return found;
}

void map_note_fault(struct weft_map *m, uint64_t at)
{
	const uint64_t unit = at / m->around, place = at % m->around;

	if (m->random)
		return;
	m->stream_clock++;
	for (unsigned i = 0; i < MAP_STREAMS; i++) {
		struct map_stream *s = &m->streams[i];
		uint64_t steps = s->used ? steps_to(s, unit) : 0;

		if (steps > 0 && steps <= s->ahead + 1) {
			s->used = m->stream_clock;
			go_ahead(m, s, steps, place);
			return;
		}
	}
	struct map_stream *s = nearest(m, unit);
	if (s && s->last == unit)
		return;
	if (!s)
		s = oldest(m);
	int64_t step = s->used && s == nearest(m, unit) ? (int64_t)(unit - s->last) : 0;
	*s = (struct map_stream){.last = unit, .step = step, .used = m->stream_clock};
	/* The next unit, twice: most programs go on like that. */
	if (step == 1)
		go_ahead(m, s, 0, place);
}
