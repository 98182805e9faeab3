/* SPDX-License-Identifier: MIT */
/*
 * The pump: a thread that sends many operations at a time: reads of what was left to it and of what
 * comes next, and writes of what is dirty.  It heals what was poisoned.  It drives the lane itself
 * while operations are in flight, and otherwise sleeps.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/map.h"
#include "fabric/base/thread.h"
#include "nbd-bridge/library/map-private.h"

#define MS_NS UINT64_C(1000000)

enum {
	ROOM_MS = 1000, /* while somebody waits for room, which nobody may tell of */
	LOST_MS = 5,    /* while a page cannot be taken out of the map */
};

enum { READS, WRITES };

/* ---- completions: the lane's thread ---- */

static void io_ended(struct command *command)
{
	struct map_io *io = weft_container_of(command, struct map_io, command);
	struct weft_map *m = io->m;
	struct lane_drive *drive = command->lane->drive, *waits_at;

	io->next = atomic_load(&m->done);
	while (!atomic_compare_exchange_weak(&m->done, &io->next, io))
		;
	atomic_fetch_add(&m->news, 1);
	waits_at = atomic_load(&m->waits_at);
	if (waits_at)
		lane_drive_counted(waits_at, waits_at == drive);
}

/* ---- operations; under the lock, unless a comment says otherwise ---- */

static struct map_io *take_io(struct weft_map *m, unsigned kind)
{
	struct map_io *io = m->ios_free[kind];

	if (io)
		m->ios_free[kind] = io->next;
	return io;
}

static void put_io(struct weft_map *m, struct map_io *io)
{
	unsigned kind = io->buf ? WRITES : READS;

	io->next = m->ios_free[kind];
	m->ios_free[kind] = io;
}

/* The lane's thread.  What has begun may end, and be used again, before the next begins. */
static void begin_all(struct lane_job *job)
{
	struct command *first = weft_container_of(job, struct command, job);
	struct map_io *io = weft_container_of(first, struct map_io, command);

	while (io) {
		struct map_io *next = io->next;

		command_begin(&io->command);
		io = next;
	}
}

/* Each time is a system call, or several.  Releases the lock. */
static void send_submitted(struct weft_map *m)
{
	struct map_io *first = m->submitted;

	if (!first)
		return;
	m->submitted = NULL;
	m->submitted_tail = &m->submitted;
	m->nr_submitted = 0;
	first->command.job.fn = begin_all;
	pthread_mutex_unlock(&m->lock);
	lane_drive_attend(m->lane->drive);
	lane_drive_post(m->lane->drive, &first->command.job);
	pthread_mutex_lock(&m->lock);
}

/* May release the lock. */
static void submit(struct weft_map *m, struct map_io *io, uint8_t kind, void *buf, uint64_t off,
	uint64_t len)
{
	command_init(&io->command, m->lane, kind, buf, m->off + off, len);
	if (m->slots && kind == TP_READ && io->frame != MAP_NO_FRAME)
		io->command.mem = m->slots[m->lane - m->w->lanes];
	io->command.ended = io_ended;
	m->nr_in_flight++;
	io->next = NULL;
	*m->submitted_tail = io;
	m->submitted_tail = &io->next;
	if (++m->nr_submitted == MAP_TOGETHER)
		send_submitted(m);
}

/*
 * Of up to *nr units; *nr becomes how many.  Releases the lock.  False: there is no room.  stays:
 * the unit that stays staged.
 */
static bool begin_read(struct weft_map *m, uint64_t unit, uint32_t *nr, bool wanted,
	uint64_t stays)
{
	bool absent;
	uint32_t frame = map_take_run(m, unit, *nr, nr, &absent);

	if (frame == MAP_NO_FRAME) {
		if (!absent && wanted)
			map_wake(m, unit);
		return !absent;
	}
	struct map_io *io = take_io(m, READS);
	uint64_t len = map_run_data(m, unit, *nr);
	uint8_t *slot = map_slot(m, frame);
	bool cold = false;
	for (uint32_t i = 0; i < *nr; i++) {
		struct map_frame *f = &m->frames[frame + i];

		cold |= !f->warm;
		f->wanted = wanted;
		f->ahead = !wanted;
		f->stays_staged = unit + i == stays;
		f->warm = true; /* from the first byte that comes */
	}
	m->counts.ahead += wanted ? 0 : *nr;
	io->frame = frame;
	io->nr = *nr;
	pthread_mutex_unlock(&m->lock);
	if (cold)
		map_warm_slots(slot, map_run_bytes(m, unit, *nr));
	memset(slot + len, 0, map_run_bytes(m, unit, *nr) - len);
	pthread_mutex_lock(&m->lock);
	submit(m, io, TP_READ, slot, map_unit_off(m, unit), len);
	return true;
}

/*
 * Threads wait.  Where there is no room since nothing can be written back, they wait for the donor,
 * and no longer than a write does; where there is none since the kernel holds the pages, as long.
 */
static bool waits_in_vain(const struct weft_map *m, const struct map_demand *demand,
	uint64_t now_ns)
{
	return now_ns < m->retry_ns || now_ns >= demand->since_ns + m->dead_ns;
}

static void serve_demand(struct weft_map *m, uint64_t now_ns)
{
	while (m->demand_nr > 0 && m->ios_free[READS]) {
		const struct map_demand demand = m->demand[m->demand_first];
		uint32_t nr = 1;

		if (m->units[demand.unit] == 0 && !m->lost) {
			if (!begin_read(m, demand.unit, &nr, true, MAP_NO_UNIT)) {
				if (!waits_in_vain(m, &demand, now_ns))
					break;
				map_fail_unit(m, demand.unit, m->write_error);
			}
		} else {
			map_wake(m, demand.unit);
		}
		m->demand_first = (m->demand_first + 1) % MAP_WANTS;
		m->demand_nr--;
	}
	send_submitted(m);
}

static bool serve_want(struct weft_map *m, struct map_want *want)
{
	while (want->nr > 0) {
		uint32_t nr = want->step == 1 ? map_run_from(m, want->unit, want->nr) : 1;

		if (want->unit >= m->nr_units || m->units[want->unit] != 0) {
			nr = 1;
		} else {
			if (!m->ios_free[READS])
				return false;
			/* Nobody waits for it, so it takes nobody's room. */
			if (!begin_read(m, want->unit, &nr, false, want->stays))
				break;
		}
		nr = weft_max(nr, 1); /* somebody was faster */
		want->nr -= nr;
		want->unit += nr * (uint64_t)want->step;
	}
	return true;
}

static void serve_wants(struct weft_map *m)
{
	while (m->want_nr > 0 && !m->lost && serve_want(m, &m->wants[m->want_first])) {
		m->want_first = (m->want_first + 1) % MAP_WANTS;
		m->want_nr--;
	}
	send_submitted(m);
}

/* ---- writing back ---- */

/* May release the lock. */
static void begin_write(struct weft_map *m, struct map_io *io)
{
	uint64_t off, len;

	if (io->command.status < 0) {
		map_write_ended(m, io);
		put_io(m, io);
		return;
	}
	map_write_place(m, io, &off, &len);
	submit(m, io, TP_WRITE, io->buf, off, len);
}

static unsigned choose_writes(struct weft_map *m, struct map_io **ret)
{
	unsigned nr = 0;

	while (m->ios_free[WRITES] && nr < MAP_TOGETHER &&
		map_choose_write(m, m->ios_free[WRITES]))
		ret[nr++] = take_io(m, WRITES);
	return nr;
}

static void write_back(struct weft_map *m, uint64_t now_ns)
{
	struct map_io *ios[MAP_TOGETHER];
	unsigned nr;

	while (!m->lost && now_ns >= m->retry_ns && (nr = choose_writes(m, ios)) > 0) {
		map_copy_writes(m, ios, nr);
		for (unsigned i = 0; i < nr; i++)
			begin_write(m, ios[i]);
	}
	send_submitted(m);
}

/* ---- the ends of operations ---- */

/* What one of several could not be had for, the others may be had without. */
static void ask_again(struct weft_map *m, uint64_t unit)
{
	if (!map_demand(m, unit))
		map_wake(m, unit);
}

static void read_ended(struct weft_map *m, struct map_io *io)
{
	const int error = io->command.status;

	if (error == 0) {
		map_fetched(m, io->frame, io->nr, NULL);
		return;
	}
	for (uint32_t i = 0; i < io->nr; i++) {
		const struct map_frame *f = &m->frames[io->frame + i];
		const uint64_t unit = f->unit;

		map_put_frame(m, io->frame + i);
		/* Somebody may have come to want it meanwhile. */
		if (f->wanted && io->nr == 1)
			map_fail_unit(m, unit, error);
		else if (f->wanted)
			ask_again(m, unit);
	}
}

static void heal(struct weft_map *m, uint64_t first, uint64_t end)
{
	for (uint64_t unit = first; unit < end; unit++)
		m->units[unit] = MAP_HEALING;
	pthread_mutex_unlock(&m->lock);
	bool healed = map_cure(m, first, end) == 0;
	pthread_mutex_lock(&m->lock);
	for (uint64_t unit = first; unit < end; unit++) {
		m->units[unit] = healed ? 0 : MAP_POISONED;
		map_wake(m, unit);
	}
	if (healed)
		m->nr_poisoned -= end - first;
	pthread_cond_broadcast(&m->changed);
}

/* What was poisoned at the last look already; what has come since is next. */
static void heal_all(struct weft_map *m)
{
	for (uint64_t first = 0, end; first < m->nr_units && m->nr_poisoned > 0; first = end) {
		for (end = first; end < m->nr_units && m->units[end] == MAP_POISONED; end++)
			;
		if (end > first)
			heal(m, first, end);
		if (end < m->nr_units && m->units[end] == MAP_POISONED_NOW)
			m->units[end] = MAP_POISONED;
		end++;
	}
}

static struct map_io *oldest_first(struct map_io *newest)
{
	struct map_io *first = NULL;

	while (newest) {
		struct map_io *io = newest;

		newest = io->next;
		io->next = first;
		first = io;
	}
	return first;
}

static void take_ends(struct weft_map *m)
{
	struct map_io *io = oldest_first(atomic_exchange(&m->done, NULL));

	while (io) {
		struct map_io *next = io->next;

		m->nr_in_flight--;
		if (io->frame == MAP_NO_FRAME) {
			if (io->command.status == 0 && !m->lost)
				heal_all(m);
		} else if (io->command.kind == TP_WRITE) {
			map_write_ended(m, io);
		} else {
			read_ended(m, io);
		}
		put_io(m, io);
		io = next;
	}
}

/* ---- what time brings ---- */

/* Whether the donor can be read again. */
static void look_whether_healed(struct weft_map *m, uint64_t now_ns)
{
	if (m->nr_poisoned == 0 || m->lost || now_ns < m->heal_ns)
		return;
	m->heal_ns = now_ns + MAP_HEAL_NS;
	struct map_io *io = take_io(m, WRITES);
	if (!io)
		return; /* all are under way, and may be for long */
	io->frame = MAP_NO_FRAME;
	submit(m, io, TP_READ, io->buf, 0, weft_min(m->len, m->grain_bytes));
	send_submitted(m);
}

static uint64_t next_time(const struct weft_map *m, uint64_t now_ns)
{
	uint64_t at = UINT64_MAX;

	if (m->lost && !m->lost_done)
		return now_ns + LOST_MS * MS_NS;
	if (m->nr_poisoned > 0 && !m->lost)
		at = weft_min(at, m->heal_ns);
	if (m->urgent.nr > 0 && m->retry_ns > now_ns)
		at = weft_min(at, m->retry_ns);
	if (m->demand_nr > 0 && m->ios_free[READS])
		at = weft_min(at, weft_min(m->demand[m->demand_first].since_ns + m->dead_ns,
					  now_ns + ROOM_MS * MS_NS));
	return at;
}

/* ---- the thread ---- */

/* Releases the lock. */
static void wait_for_news(struct weft_map *m, uint64_t seen, uint64_t until_ns)
{
	if (m->nr_in_flight == 0) {
		bool in_time = true;

		m->waits_here = true;
		while (atomic_load(&m->news) == seen && in_time && !atomic_load(&m->stop))
			in_time = weft_cond_wait_until(&m->news_cond, &m->lock, until_ns);
		m->waits_here = false;
		return;
	}
	struct lane_waiter waiter = {.count = &m->news, .seen = seen};
	pthread_mutex_unlock(&m->lock);
	atomic_store(&m->waits_at, m->lane->drive);
	lane_drive_attend(m->lane->drive);
	lane_drive_wait(m->lane->drive, &waiter, until_ns);
	atomic_store(&m->waits_at, NULL);
	pthread_mutex_lock(&m->lock);
}

static void *pump(void *ctx)
{
	struct weft_map *m = ctx;

	pthread_setname_np(pthread_self(), "weft-map-pump");
	pthread_mutex_lock(&m->lock);
	while (!atomic_load(&m->stop) || m->nr_in_flight > 0) {
		const uint64_t seen = atomic_load(&m->news), now_ns = weft_now_ns();

		if (m->nr_in_flight == 0)
			m->lane = library_lane_of_thread(m->w);
		take_ends(m);
		map_look_whether_lost(m);
		if (!atomic_load(&m->stop)) {
			serve_demand(m, now_ns);
			write_back(m, now_ns);
			serve_wants(m);
			look_whether_healed(m, now_ns);
		}
		wait_for_news(m, seen, next_time(m, now_ns));
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

/* Of a WRITE. */
static uint64_t buffer_bytes(const struct weft_map *m)
{
	return m->write_units * m->unit_bytes;
}

int map_pump_init(struct weft_map *m, struct weft_error *err)
{
	m->submitted_tail = &m->submitted;
	m->nr_ios = MAP_READS + m->nr_writes;
	m->ios = calloc(m->nr_ios, sizeof(m->ios[0]));
	m->bounce = weft_map_bytes(m->nr_writes * buffer_bytes(m));
	if (!m->ios || !m->bounce)
		return weft_error_set(err, ENOMEM, "cannot map: out of memory");
	for (unsigned i = 0; i < m->nr_ios; i++) {
		m->ios[i].m = m;
		if (i >= MAP_READS)
			m->ios[i].buf = m->bounce + (i - MAP_READS) * buffer_bytes(m);
		put_io(m, &m->ios[i]);
	}
	return 0;
}

int map_start_pump(struct weft_map *m, struct weft_error *err)
{
	int r = weft_thread_create(&m->pump, NULL, pump, m);
	if (r < 0)
		return weft_error_set(err, -r, "cannot map: no thread: %s", strerror(-r));
	m->pump_runs = true;
	return 0;
}

void map_join_pump(struct weft_map *m)
{
	if (!m->pump_runs)
		return;
	pthread_mutex_lock(&m->lock);
	atomic_store(&m->stop, true);
	map_tell_pump(m);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->pump, NULL);
	m->pump_runs = false;
}

void map_pump_fini(struct weft_map *m)
{
	if (m->bounce)
		munmap(m->bounce, m->nr_writes * buffer_bytes(m));
	free(m->ios);
}
