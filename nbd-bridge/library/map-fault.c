/* SPDX-License-Identifier: MIT */
/*
 * The handlers: threads that take page faults of a map.
 *
 * There is one for each processor, which stays on it.  The kernel wakes them all, and the one on
 * the faulting thread's processor runs as soon as that thread sleeps, without a wake-up across
 * processors.  A handler reads what is missing itself, and drives the lane.  A thread that waits
 * for a page that is here must not wait for others' network.  So when all of them read, a spare one
 * takes over, which never does: it leaves what has to be read to the pump.
 *
 * Nothing here touches the map or allocates.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/map-uapi.h"

enum {
	SPARE_POLL_MS = 5, /* how late the spare one finds that others are back */
	FULL_PAUSE_US = 200,
};

/* ---- a unit that is absent; under the lock ---- */

bool map_demand(struct weft_map *m, uint64_t unit)
{
	for (unsigned i = 0; i < m->demand_nr; i++)
		if (m->demand[(m->demand_first + i) % MAP_WANTS] == unit)
			return true;
	if (m->demand_nr == MAP_WANTS)
		return false;
	m->demand[(m->demand_first + m->demand_nr++) % MAP_WANTS] = (uint32_t)unit;
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

static void read_unit(struct weft_map *m, uint32_t frame)
{
	const uint64_t unit = m->frames[frame].unit, len = map_unit_data(m, unit);
	uint8_t *slot = map_slot(m, frame);

	if (++m->nr_direct == m->nr_handlers)
		pthread_cond_signal(&m->spare);
	pthread_mutex_unlock(&m->lock);
	memset(slot + len, 0, map_unit_bytes(m, unit) - len);
	int r = library_call_from(m->w, m->slots, TP_READ, slot, m->off + map_unit_off(m, unit),
		len);
	pthread_mutex_lock(&m->lock);
	m->nr_direct--;
	if (r == 0) {
		map_fetched(m, frame);
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
	if (frame == MAP_NO_FRAME) {
		leave_to_pump(m, unit);
		return;
	}
	m->frames[frame].wanted = true;
	read_unit(m, frame);
}

/* ---- a unit that has a frame; under the lock ---- */

/*
 * It came meanwhile; or the program has dropped the page, with its bytes.  A page that was swapped
 * out again causes no second fault here.
 */
static void show_page_again(struct weft_map *m, const struct map_frame *f, uint64_t address)
{
	if (!map_is_here(m, address) && m->dropped == address)
		map_poison_page(m, address);
	m->dropped = address;
	map_wake(m, f->unit);
}

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
			map_bring_back(m, frame);
		break;
	case FRAME_RESIDENT:
		if (m->mode->shares)
			map_bring_back(m, frame);
		else
			show_page_again(m, f, address);
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

static void serve(struct map_handler *handler, uint64_t address, bool is_protected)
{
	struct weft_map *m = handler->m;
	uint64_t unit = (address - (uintptr_t)m->base) / m->unit_bytes;

	pthread_mutex_lock(&m->lock);
	m->counts.faults++;
	if (is_protected)
		let_write(m, unit);
	else if (m->units[unit] == MAP_POISONED)
		map_poison(m, unit);
	else if (m->units[unit] == MAP_HEALING)
		; /* whoever waits is woken then */
	else if (m->lost && m->units[unit] == 0)
		map_fail_unit(m, unit, m->lost);
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

/* ---- the threads ---- */

static void take_faults(struct map_handler *handler)
{
	struct uffd_msg msg;

	while (!atomic_load(&handler->m->stop_handlers) &&
		read(handler->m->uffd, &msg, sizeof(msg)) == sizeof(msg))
		if (msg.event == UFFD_EVENT_PAGEFAULT)
			serve(handler, msg.arg.pagefault.address,
				msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *handle(void *ctx)
{
	struct map_handler *handler = ctx;
	struct pollfd fds[] = {
		{.fd = handler->m->uffd, .events = POLLIN},
		{.fd = handler->m->stop_fd, .events = POLLIN},
	};

	pthread_setname_np(pthread_self(), "weft-map");
	if (handler->cpu >= 0)
		stay_on(handler->cpu);
	while (!atomic_load(&handler->m->stop_handlers)) {
		poll(fds, WEFT_ARRAY_LEN(fds), -1);
		take_faults(handler);
	}
	return NULL;
}

static void *stand_by(void *ctx)
{
	struct map_handler *handler = ctx;
	struct weft_map *m = handler->m;
	struct pollfd p = {.fd = m->uffd, .events = POLLIN};

	pthread_setname_np(pthread_self(), "weft-map-spare");
	pthread_mutex_lock(&m->lock);
	while (!atomic_load(&m->stop_handlers)) {
		if (m->nr_direct < m->nr_handlers) {
			pthread_cond_wait(&m->spare, &m->lock);
			continue;
		}
		pthread_mutex_unlock(&m->lock);
		poll(&p, 1, SPARE_POLL_MS);
		take_faults(handler);
		pthread_mutex_lock(&m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

static int start(struct weft_map *m, int cpu, bool spare, struct weft_error *err)
{
	struct map_handler *handler = &m->handlers[m->nr_threads];

	*handler = (struct map_handler){.m = m, .cpu = cpu, .spare = spare};
	int r = weft_thread_create(&handler->thread, NULL, spare ? stand_by : handle, handler);
	if (r < 0)
		return weft_error_set(err, -r, "cannot map: no thread: %s", strerror(-r));
	m->nr_threads++;
	return 0;
}

int map_start_handlers(struct weft_map *m, struct weft_error *err)
{
	cpu_set_t set;
	int r = 0, cpu = -1;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		CPU_ZERO(&set);
	for (unsigned i = 0; i < m->nr_handlers && r == 0; i++) {
		/* More handlers than processors, or more processors than the set has room for. */
		do
			cpu++;
		while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &set));
		r = start(m, cpu < CPU_SETSIZE ? cpu : -1, false, err);
	}
	return r == 0 ? start(m, -1, true, err) : r;
}

void map_join_handlers(struct weft_map *m)
{
	uint64_t one = 1;

	atomic_store(&m->stop_handlers, true);
	if (write(m->stop_fd, &one, sizeof(one)) < 0)
		return; /* cannot be: nobody else writes there */
	pthread_mutex_lock(&m->lock);
	pthread_cond_broadcast(&m->spare);
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < m->nr_threads; i++)
		pthread_join(m->handlers[i].thread, NULL);
	m->nr_threads = 0;
}
