/* SPDX-License-Identifier: MIT */
/*
 * The contents are gone: another life of the region, or somebody took it over.  Nothing that is
 * here is what the donor has, so no page may stay in the map: each is taken out, into its slot, and
 * what the donor did not get stays there to be rescued.  Whoever touches the map gets SIGBUS.
 *
 * The map is lost for as long as the handle is.  A reset begins again with an empty one.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nbd-bridge/library/map-private.h"

enum {
	PINNED_TRIES = 200,
	WAIT_MS = 30000,
	WAIT_US = 2000,
};

static bool is_stale(const struct weft_map *m)
{
	return atomic_load(&bridge_attachment(m->w->bridge)->stale);
}

void library_maps_changed(struct weft *w)
{
	pthread_mutex_lock(&w->lock);
	for (struct weft_map *m = w->maps; m; m = m->next) {
		pthread_mutex_lock(&m->lock);
		map_tell_pump(m);
		pthread_mutex_unlock(&m->lock);
	}
	pthread_mutex_unlock(&w->lock);
}

void map_lost_fault(struct weft_map *m, uint64_t unit)
{
	const struct map_frame *f = &m->frames[map_frame_of(m, unit)];

	/* Whoever moves the pages tells whoever waits. */
	if (f->state == FRAME_STAGED)
		map_poison(m, unit);
	else if (f->state == FRAME_RESIDENT)
		map_wake(m, unit);
}

/* ---- taking the pages out; the pump, under the lock ---- */

/* Copies the unit into its slot.  Returns the grains of which all bytes are there. */
static uint64_t copy_what_is_here(struct weft_map *m, uint32_t frame)
{
	const uint64_t unit = m->frames[frame].unit, bytes = map_unit_bytes(m, unit);
	uint64_t copied = 0;

	for (uint64_t left = map_unit_grains(m, unit); left; left &= left - 1) {
		uint64_t at = (unsigned)__builtin_ctzll(left) * m->grain_bytes;

		if (map_read(m, frame, at, map_slot(m, frame) + at,
			    weft_min(m->grain_bytes, bytes - at)) == 0)
			copied |= left & -left;
	}
	return copied;
}

/* Nobody has the bytes of these grains any more. */
static void forget_dirt(struct weft_map *m, uint32_t frame, uint64_t grains)
{
	struct map_frame *f = &m->frames[frame];

	m->nr_dirty_grains -= (unsigned)__builtin_popcountll(f->dirty & grains);
	f->dirty &= ~grains;
	if (!f->dirty)
		map_undirty(m, frame);
}

/*
 * Pages cannot be moved.  The kernel may hold one for long: what it is now is kept, and what it
 * becomes is lost.  Or the program has dropped some: what it wrote there is gone, and not rescued.
 */
static void force_out(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	map_list_remove(m, frame);
	f->state = FRAME_LEAVING;
	m->forced = frame;
	pthread_mutex_unlock(&m->lock);
	uint64_t copied = copy_what_is_here(m, frame);
	map_take_pages(m, f->unit, 1);
	uint64_t differing = map_differing(m, frame, copied, map_slot(m, frame));
	pthread_mutex_lock(&m->lock);
	m->forced = MAP_NO_FRAME;
	f->state = FRAME_STAGED;
	f->warm = true;
	forget_dirt(m, frame, map_unit_grains(m, f->unit) & ~copied);
	map_mark_dirty(m, frame, differing, 0);
	map_bring_back(m, frame, 1);
}

static bool take_out(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];

	if (f->copying || f->state == FRAME_FETCHING || f->state == FRAME_LEAVING ||
		f->state == FRAME_RETURNING)
		return false;
	if (f->state == FRAME_STAGED)
		map_poison(m, f->unit);
	if (f->state != FRAME_RESIDENT)
		return true;
	if (m->lost_tries >= PINNED_TRIES && m->mode->keeps)
		force_out(m, frame);
	else
		map_evict_frame(m, frame);
	return f->state != FRAME_RESIDENT;
}

static void drop_demand(struct weft_map *m)
{
	for (; m->demand_nr > 0; m->demand_nr--) {
		uint64_t unit = m->demand[m->demand_first].unit;

		m->demand_first = (m->demand_first + 1) % MAP_WANTS;
		if (m->units[unit] == 0)
			map_fail_unit(m, unit, m->lost);
	}
	m->want_nr = 0;
}

static void take_all_out(struct weft_map *m)
{
	bool all = true;

	drop_demand(m);
	for (uint32_t frame = 0; frame < m->nr_frames; frame++)
		all &= take_out(m, frame);
	/* Last, since the lock was released meanwhile. */
	all &= m->nr_in_flight == 0 && m->nr_direct == 0;
	m->lost_tries++;
	m->lost_done = all;
	if (all)
		map_poison_all(m);
	pthread_cond_broadcast(&m->changed);
}

void map_look_whether_lost(struct weft_map *m)
{
	if (!m->lost && is_stale(m))
		m->lost = m->w->info.has_epoch ? -ESTALE : -ENOTCONN;
	if (!m->lost || m->lost_done)
		return;
	take_all_out(m);
	if (!m->lost_done || !m->on_lost)
		return;
	const int error = m->lost;
	pthread_mutex_unlock(&m->lock);
	m->on_lost(m->on_lost_ctx, error);
	pthread_mutex_lock(&m->lock);
}

/* ---- rescue; nothing moves any more ---- */

static int check_lost(struct weft_map *m)
{
	pthread_mutex_lock(&m->lock);
	int r = m->lost_done ? 0 : m->lost ? -EAGAIN : -EINVAL;
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int rescue_unit(struct weft_map *m, uint32_t frame, uint64_t *bytes,
	int (*fn)(void *ctx, uint64_t off, const void *data, size_t len), void *ctx)
{
	const struct map_frame *f = &m->frames[frame];
	int r = 0;

	for (uint64_t left = f->dirty; left && r == 0;) {
		uint64_t low = left & -left, run = left & ~(left + low);
		uint64_t first = (unsigned)__builtin_ctzll(run) * m->grain_bytes;
		uint64_t len = weft_min((unsigned)__builtin_popcountll(run) * m->grain_bytes,
			map_unit_data(m, f->unit) - first);

		left &= ~run;
		*bytes += len;
		r = fn(ctx, map_unit_off(m, f->unit) + first, map_slot(m, frame) + first, len);
	}
	return r;
}

int64_t weft_map_rescue(struct weft_map *m,
	int (*fn)(void *ctx, uint64_t off, const void *data, size_t len), void *ctx)
{
	uint64_t bytes = 0;
	int r = check_lost(m);

	for (uint64_t unit = 0; unit < m->nr_units && r == 0; unit++) {
		uint32_t frame = map_frame_of(m, unit);

		if (frame != MAP_NO_FRAME && m->frames[frame].state == FRAME_STAGED)
			r = rescue_unit(m, frame, &bytes, fn, ctx);
	}
	return r ? r : (int64_t)bytes;
}

/* ---- reset ---- */

/* No map of the handle may take the next contents for those that it has. */
static int wait_for_others(struct weft *w)
{
	const uint64_t end_ns = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	for (;;) {
		bool all = true;

		pthread_mutex_lock(&w->lock);
		for (struct weft_map *m = w->maps; m; m = m->next)
			all &= check_lost(m) == 0;
		pthread_mutex_unlock(&w->lock);
		if (all)
			return 0;
		if (weft_now_ns() >= end_ns)
			return -EAGAIN;
		library_maps_changed(w);
		usleep(WAIT_US);
	}
}

static int reset_handle(struct weft *w, struct weft_error *err)
{
	if (!atomic_load(&bridge_attachment(w->bridge)->stale))
		return 0;
	if (wait_for_others(w) < 0)
		return weft_error_set(err, EAGAIN,
			"cannot reset: another map of the handle is in use still");
	return bridge_reset(w->bridge,
		weft_next_incarnation(attachment_generation(bridge_attachment(w->bridge))), NULL,
		NULL, err);
}

/* Nothing is in the map, and nothing goes there before m->lost is over. */
static void begin_anew(struct weft_map *m)
{
	/* What cannot be mapped yet heals later. */
	const bool cured = map_cure_all(m) == 0;

	pthread_mutex_lock(&m->lock);
	for (uint32_t frame = 0; frame < m->nr_frames; frame++) {
		struct map_frame *f = &m->frames[frame];

		if (f->state == FRAME_FREE)
			continue;
		map_undirty(m, frame);
		map_list_remove(m, frame);
		*f = (struct map_frame){.state = FRAME_FREE, .warm = f->warm};
		map_list_add(m, &m->free, frame);
	}
	for (uint64_t unit = 0; unit < m->nr_units; unit++) {
		m->units[unit] = cured ? 0 : MAP_POISONED;
		m->written[unit] = 0;
	}
	m->nr_dirty_grains = 0;
	m->nr_poisoned = cured ? 0 : m->nr_units;
	m->lost = m->write_error = 0;
	m->lost_done = false;
	m->lost_tries = 0;
	m->retry_ns = 0;
	map_tell_pump(m);
	pthread_mutex_unlock(&m->lock);
}

/* Under the handle's reset_lock: whoever comes second finds that the contents are here. */
static int reset(struct weft_map *m, struct weft_error *err)
{
	int r = check_lost(m);

	if (r < 0)
		return weft_error_set(err, -r, "cannot reset: %s",
			r == -EINVAL ? "the contents are not gone" : strerror(-r));
	r = reset_handle(m->w, err);
	if (r == 0)
		begin_anew(m);
	return r;
}

int weft_map_reset(struct weft_map *m, char *why, size_t why_size)
{
	struct weft_error err = {0};
	int r;

	if (library_lane_in_completion) {
		r = weft_error_set(
			&err, EDEADLK, "cannot reset: a completion must not block");
	} else {
		pthread_mutex_lock(&m->w->reset_lock);
		r = reset(m, &err);
		pthread_mutex_unlock(&m->w->reset_lock);
	}
	if (why_size > 0)
		snprintf(why, why_size, "%s", err.message);
	return r;
}
