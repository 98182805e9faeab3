/* SPDX-License-Identifier: MIT */
/*
 * The keeper of the room: a thread that makes room before room is needed, and looks for dirt now
 * and then.  Both are long work on pages, which the pump's operations need not wait for.
 */
#include <string.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/library/map-private.h"

#define MS_NS UINT64_C(1000000)

enum {
	SCAN_MS = 1000,     /* between two looks for dirt, while there is some … */
	SCAN_MAX_MS = 8000, /* … and when there is none for long */
};

/* ---- under the lock ---- */

void map_look_for_dirt_at(struct weft_map *m, uint64_t ns)
{
	m->scan_ns = ns;
	m->scan_asked = true;
	pthread_cond_signal(&m->room_cond);
}

static void make_room(struct weft_map *m)
{
	if (m->wants_room && !m->lost)
		map_make_room(m, map_wanted_room(m));
	m->wants_room = false;
	/* Or somebody waits for the room that there is now. */
	if (m->urgent.nr > 0 || (m->demand_nr > 0 && m->free.nr + m->clean.nr > 0))
		map_tell_pump(m);
}

static void look_for_dirt(struct weft_map *m, uint64_t now_ns)
{
	if (m->read_only || now_ns < m->scan_ns)
		return;
	if (m->lost) {
		m->scan_ns = now_ns + SCAN_MS * MS_NS;
		return;
	}
	const uint64_t seq = m->seq;
	m->scan_asked = false;
	pthread_mutex_unlock(&m->lock);
	map_collect(m, 0, m->map_bytes);
	pthread_mutex_lock(&m->lock);
	for (uint32_t frame = 0; frame < m->nr_frames && !atomic_load(&m->stop); frame++) {
		map_look_at_bytes(m, frame);
		map_let_handlers_in(m);
		if (m->wants_room)
			make_room(m);
	}
	const bool found = m->seq != seq || m->aged.nr || m->urgent.nr;
	m->scan_every_ns = found ? SCAN_MS * MS_NS
				 : weft_min(2 * m->scan_every_ns, SCAN_MAX_MS * MS_NS);
	if (!m->scan_asked)
		m->scan_ns = now_ns + m->scan_every_ns;
	if (found)
		map_tell_pump(m);
}

/* ---- the thread ---- */

static void *keep(void *ctx)
{
	struct weft_map *m = ctx;

	pthread_setname_np(pthread_self(), "weft-map-room");
	pthread_mutex_lock(&m->lock);
	while (!atomic_load(&m->stop)) {
		make_room(m);
		look_for_dirt(m, weft_now_ns());
		if (!m->wants_room && !atomic_load(&m->stop))
			weft_cond_wait_until(&m->room_cond, &m->lock,
				m->read_only ? UINT64_MAX : m->scan_ns);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

int map_start_room(struct weft_map *m, struct weft_error *err)
{
	m->scan_every_ns = SCAN_MS * MS_NS;
	m->scan_ns = weft_now_ns() + m->scan_every_ns;
	int r = weft_thread_create(&m->room, NULL, keep, m);
	if (r < 0)
		return weft_error_set(err, -r, "cannot map: no thread: %s", strerror(-r));
	m->room_runs = true;
	return 0;
}

void map_join_room(struct weft_map *m)
{
	if (!m->room_runs)
		return;
	pthread_mutex_lock(&m->lock);
	atomic_store(&m->stop, true);
	pthread_cond_signal(&m->room_cond);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->room, NULL);
	m->room_runs = false;
}
