/* SPDX-License-Identifier: MIT */
/*
 * The pump: a thread that does what nobody waits for at a fault.  It sends many operations at a
 * time: reads of what was left to it and of what comes next, and writes of what is dirty.  It makes
 * room before room is needed, looks for dirt now and then, and heals what was poisoned.  It drives
 * the lane itself while operations are in flight, and otherwise sleeps.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/map.h"
#include "fabric/base/thread.h"
#include "nbd-bridge/library/map-private.h"

#define MS_NS UINT64_C(1000000)

enum {
	SCAN_MS = 1000,      /* between two looks for dirt, while there is some … */
	SCAN_MAX_MS = 8000,  /* … and when there is none for long */
	AGE_MS = 900,        /* dirt that is so old is written back */
	RETRY_MS = 500,      /* after a WRITE has failed */
	HEAL_MS = 200,
	LOST_MS = 5,         /* while a page cannot be taken out of the map */
	LOOK_AT = 16,        /* frames, for one that can be written */
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

/* Without the lock. */
static void submit(struct weft_map *m, struct map_io *io, uint8_t kind, void *buf, uint64_t off,
	uint64_t len)
{
	command_init(&io->command, m->lane, kind, buf, m->off + off, len);
	if (m->slots && kind == TP_READ && io->frame != MAP_NO_FRAME)
		io->command.mem = m->slots[m->lane - m->w->lanes];
	io->command.ended = io_ended;
	m->nr_in_flight++;
	lane_drive_attend(m->lane->drive);
	lane_drive_post(m->lane->drive, &io->command.job);
}

/* Releases the lock.  False: there is no room. */
static bool begin_read(struct weft_map *m, uint64_t unit, bool wanted, bool stays)
{
	bool absent;
	uint32_t frame = map_take_frame(m, unit, &absent);

	if (frame == MAP_NO_FRAME) {
		if (!absent && wanted)
			map_wake(m, unit);
		return !absent;
	}
	struct map_frame *f = &m->frames[frame];
	struct map_io *io = take_io(m, READS);
	uint64_t len = map_unit_data(m, unit);
	uint8_t *slot = map_slot(m, frame);
	f->wanted = wanted;
	f->ahead = !wanted;
	f->stays_staged = stays;
	m->counts.ahead += !wanted;
	io->frame = frame;
	pthread_mutex_unlock(&m->lock);
	memset(slot + len, 0, map_unit_bytes(m, unit) - len);
	submit(m, io, TP_READ, slot, map_unit_off(m, unit), len);
	pthread_mutex_lock(&m->lock);
	return true;
}

/*
 * Threads wait.  Where there is no room since nothing can be written back, they wait for the donor,
 * and no longer than a write does.
 */
static void serve_demand(struct weft_map *m, uint64_t now_ns)
{
	while (m->demand_nr > 0 && m->ios_free[READS]) {
		uint64_t unit = m->demand[m->demand_first];

		if (m->units[unit] == 0 && !m->lost) {
			if (!begin_read(m, unit, true, false)) {
				if (now_ns >= m->retry_ns)
					break;
				map_fail_unit(m, unit, m->write_error);
			}
		} else {
			map_wake(m, unit);
		}
		m->demand_first = (m->demand_first + 1) % MAP_WANTS;
		m->demand_nr--;
	}
}

static bool serve_want(struct weft_map *m, struct map_want *want)
{
	for (; want->nr > 0; want->nr--) {
		if (want->unit < m->nr_units && m->units[want->unit] == 0) {
			if (!m->ios_free[READS])
				return false;
			/* Nobody waits for it, so it takes nobody's room. */
			if (!begin_read(m, want->unit, false, want->stays))
				break;
		}
		want->unit += (uint64_t)want->step;
		want->stays = false;
	}
	return true;
}

static void serve_wants(struct weft_map *m)
{
	while (m->want_nr > 0 && !m->lost && serve_want(m, &m->wants[m->want_first])) {
		m->want_first = (m->want_first + 1) % MAP_WANTS;
		m->want_nr--;
	}
}

/* ---- writing back ---- */

static uint64_t first_run(uint64_t grains)
{
	uint64_t low = grains & -grains, above = grains + low;

	return grains & ~above;
}

static bool can_write(const struct map_frame *f)
{
	return !f->copying && (f->state == FRAME_STAGED || f->state == FRAME_RESIDENT) &&
		f->dirty & ~f->writing;
}

static uint32_t find_writable(struct weft_map *m, const struct map_list *list, uint64_t before_ns)
{
	uint32_t frame = list->first;

	for (unsigned i = 0; frame != MAP_NO_FRAME && i < LOOK_AT; i++) {
		if (can_write(&m->frames[frame]) && m->frames[frame].dirty_ns < before_ns)
			return frame;
		frame = m->frames[frame].dirty_next;
	}
	return MAP_NO_FRAME;
}

/* The bytes may change meanwhile, if they are in the map: then they are dirty again. */
static int copy_out(struct weft_map *m, uint32_t frame, struct map_io *io)
{
	struct map_frame *f = &m->frames[frame];
	uint64_t first = (unsigned)__builtin_ctzll(io->grains) * m->grain_bytes;
	uint64_t len = weft_min((unsigned)__builtin_popcountll(io->grains) * m->grain_bytes,
		map_unit_bytes(m, f->unit) - first);

	f->copying = true;
	pthread_mutex_unlock(&m->lock);
	int r = map_read(m, frame, first, io->buf + first, len);
	map_hash(m, frame, io->grains, io->buf);
	pthread_mutex_lock(&m->lock);
	f->copying = false;
	if (f->state == FRAME_STAGED && f->wanted)
		map_bring_back(m, frame);
	pthread_cond_broadcast(&m->changed);
	return r;
}

static void write_ended(struct weft_map *m, struct map_io *io)
{
	struct map_frame *f = &m->frames[io->frame];
	int error = io->command.status;

	f->writing &= ~io->grains;
	if (error == 0) {
		m->counts.written_bytes += io->command.len;
	} else {
		m->counts.write_errors++;
		m->nr_write_errors++;
		m->write_error = error;
		m->retry_ns = weft_now_ns() + RETRY_MS * MS_NS;
		map_mark_dirty(m, io->frame, io->grains, f->writing_seq);
	}
	/* What was written again meanwhile may be sent now. */
	uint64_t dirty = f->dirty;
	if (dirty && !f->in_dirty)
		map_mark_dirty(m, io->frame, dirty, f->dirty_seq);
	map_settle(m, io->frame);
}

static void begin_write(struct weft_map *m, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];
	struct map_io *io = take_io(m, WRITES);

	io->frame = frame;
	io->grains = first_run(f->dirty & ~f->writing);
	f->writing_seq = f->writing ? weft_min(f->writing_seq, f->dirty_seq) : f->dirty_seq;
	f->writing |= io->grains;
	f->dirty &= ~io->grains;
	m->nr_dirty_grains -= (unsigned)__builtin_popcountll(io->grains);
	if (!(f->dirty & ~f->writing))
		map_undirty(m, frame);
	if (!f->dirty)
		f->urgent = false;
	io->command.status = copy_out(m, frame, io);
	if (io->command.status < 0) {
		write_ended(m, io);
		put_io(m, io);
		return;
	}
	uint64_t first = (unsigned)__builtin_ctzll(io->grains) * m->grain_bytes;
	uint64_t len = (unsigned)__builtin_popcountll(io->grains) * m->grain_bytes;
	uint64_t unit = f->unit;
	pthread_mutex_unlock(&m->lock);
	submit(m, io, TP_WRITE, io->buf + first, map_unit_off(m, unit) + first,
		weft_min(len, map_unit_data(m, unit) - first));
	pthread_mutex_lock(&m->lock);
}

static void write_back(struct weft_map *m, uint64_t now_ns)
{
	if (m->lost || now_ns < m->retry_ns)
		return;
	while (m->ios_free[WRITES] && now_ns >= m->retry_ns) {
		uint32_t frame = find_writable(m, &m->urgent, UINT64_MAX);

		if (frame == MAP_NO_FRAME)
			frame = find_writable(m, &m->aged, now_ns - AGE_MS * MS_NS);
		if (frame == MAP_NO_FRAME)
			return;
		begin_write(m, frame);
	}
}

/* ---- the ends of operations ---- */

static void read_ended(struct weft_map *m, struct map_io *io)
{
	struct map_frame *f = &m->frames[io->frame];
	uint64_t unit = f->unit;

	if (io->command.status == 0) {
		map_fetched(m, io->frame);
		return;
	}
	map_put_frame(m, io->frame);
	if (f->wanted)
		map_fail_unit(m, unit, io->command.status);
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

static void heal_all(struct weft_map *m)
{
	for (uint64_t first = 0, end; first < m->nr_units && m->nr_poisoned > 0; first = end) {
		for (end = first; end < m->nr_units && m->units[end] == MAP_POISONED; end++)
			;
		if (end > first)
			heal(m, first, end);
		else
			end++;
	}
}

static void take_ends(struct weft_map *m)
{
	struct map_io *io = atomic_exchange(&m->done, NULL);

	while (io) {
		struct map_io *next = io->next;

		m->nr_in_flight--;
		if (io->frame == MAP_NO_FRAME) {
			if (io->command.status == 0 && !m->lost)
				heal_all(m);
		} else if (io->command.kind == TP_WRITE) {
			write_ended(m, io);
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
	struct map_io *io;

	if (m->nr_poisoned == 0 || m->lost || now_ns < m->heal_ns || !(io = take_io(m, WRITES)))
		return;
	m->heal_ns = now_ns + HEAL_MS * MS_NS;
	io->frame = MAP_NO_FRAME;
	pthread_mutex_unlock(&m->lock);
	submit(m, io, TP_READ, io->buf, 0, weft_min(m->len, m->grain_bytes));
	pthread_mutex_lock(&m->lock);
}

static void look_for_dirt(struct weft_map *m, uint64_t now_ns)
{
	if (m->read_only || m->lost || now_ns < m->scan_ns)
		return;
	const uint64_t seq = m->seq;
	pthread_mutex_unlock(&m->lock);
	map_collect(m, 0, m->map_bytes);
	pthread_mutex_lock(&m->lock);
	for (uint32_t frame = 0; frame < m->nr_frames; frame++)
		map_look_at_bytes(m, frame);
	m->scan_every_ns = m->seq != seq || m->aged.nr || m->urgent.nr
		? SCAN_MS * MS_NS
		: weft_min(2 * m->scan_every_ns, SCAN_MAX_MS * MS_NS);
	m->scan_ns = now_ns + m->scan_every_ns;
}

static void keep_room(struct weft_map *m)
{
	uint32_t nr = (uint32_t)weft_max(m->nr_frames / 8, 2);

	if (!m->mode->whole && m->free.nr + m->clean.nr < nr / 2)
		map_make_room(m, nr);
}

static uint64_t next_time(const struct weft_map *m, uint64_t now_ns)
{
	uint64_t at = m->read_only || m->lost ? UINT64_MAX : m->scan_ns;

	if (m->lost && !m->lost_done)
		return now_ns + LOST_MS * MS_NS;
	if (m->nr_poisoned > 0 && !m->lost)
		at = weft_min(at, m->heal_ns);
	if (m->urgent.nr > 0 && m->retry_ns > now_ns)
		at = weft_min(at, m->retry_ns);
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
			look_for_dirt(m, now_ns);
			write_back(m, now_ns);
			serve_wants(m);
			keep_room(m);
			look_whether_healed(m, now_ns);
		}
		wait_for_news(m, seen, next_time(m, now_ns));
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

int map_pump_init(struct weft_map *m, struct weft_error *err)
{
	m->nr_ios = MAP_READS + m->nr_writes;
	m->ios = calloc(m->nr_ios, sizeof(m->ios[0]));
	m->bounce = weft_map_bytes(m->nr_writes * m->unit_bytes);
	if (!m->ios || !m->bounce)
		return weft_error_set(err, ENOMEM, "cannot map: out of memory");
	for (unsigned i = 0; i < m->nr_ios; i++) {
		m->ios[i].m = m;
		if (i >= MAP_READS)
			m->ios[i].buf = m->bounce + (i - MAP_READS) * m->unit_bytes;
		put_io(m, &m->ios[i]);
	}
	return 0;
}

int map_start_pump(struct weft_map *m, struct weft_error *err)
{
	m->scan_every_ns = SCAN_MS * MS_NS;
	m->scan_ns = weft_now_ns() + m->scan_every_ns;
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
		munmap(m->bounce, m->nr_writes * m->unit_bytes);
	free(m->ios);
}
