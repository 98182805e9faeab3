/* SPDX-License-Identifier: MIT */
/*
 * weft_map(): a region as memory of the program.  Making a map and ending it, and what callers ask
 * of one.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "fabric/base/map.h"
#include "fabric/base/thread.h"
#include "nbd-bridge/library/map-private.h"

#define UNIT_DEFAULT (UINT64_C(64) << 10)
/* A connection that was idle sends ten packets at once, and the rest a round trip later. */
#define UNIT_FAR (UINT64_C(8) << 10)
#define FAR_US 20000
#define UNIT_MAX (UINT64_C(1) << 20)
#define LOCAL_DEFAULT (UINT64_C(256) << 20)

enum { HANDLERS_DEFAULT = 4, ALL_MAP_FLAGS = WEFT_MAP_READ_ONLY | WEFT_MAP_ALL_FAULTS };

/* ---- options ---- */

static int copy_options(const struct weft_map_options *given, struct weft_map_options *ret,
	struct weft_error *err)
{
	*ret = (struct weft_map_options){.size = sizeof(*ret)};
	if (!given)
		return 0;
	if (given->size < offsetof(struct weft_map_options, flags) + sizeof(given->flags))
		return weft_error_set(err, EINVAL,
			"cannot map: options.size is not the struct's size");
	memcpy(ret, given, weft_min(given->size, sizeof(*ret)));
	for (size_t i = sizeof(*ret); i < given->size; i++)
		if (((const char *)given)[i] != 0)
			return weft_error_set(err, E2BIG,
				"cannot map: an option is of a later version of this library");
	return 0;
}

static bool is_power_of_two(uint64_t n)
{
	return n > 0 && (n & (n - 1)) == 0;
}

static int check_place(const struct weft *w, uint64_t off, uint64_t len, uint64_t unit_bytes,
	struct weft_error *err)
{
	const uint64_t page = weft_page_bytes(), size = w->info.size_bytes;
	const uint32_t block = w->info.min_block_bytes;

	if (len == 0 || off > size || len > size - off)
		return weft_error_set(err, EINVAL,
			"cannot map %" PRIu64 " bytes at %" PRIu64 " of a region that has %" PRIu64,
			len, off, size);
	if (block > MAP_GRAIN_MAX || unit_bytes % block)
		return weft_error_set(err, EINVAL,
			"cannot map: the server takes whole blocks of %u bytes: unit_bytes is a "
			"multiple of that, and blocks have %d bytes at most",
			block, MAP_GRAIN_MAX);
	if (off % page || off % block || len % block)
		return weft_error_set(err, EINVAL,
			"cannot map: the offset is a multiple of %" PRIu64 " and the length of %u",
			weft_max(page, block), block);
	return 0;
}

static uint64_t default_unit(const struct weft *w)
{
	const uint64_t bytes = w->info.rtt_us < FAR_US ? UNIT_DEFAULT : UNIT_FAR;

	return weft_max(weft_max(bytes, weft_page_bytes()), w->info.min_block_bytes);
}

static int check_options(const struct weft *w, struct weft_map_options *o, struct weft_error *err)
{
	if (o->flags & ~(unsigned)ALL_MAP_FLAGS)
		return weft_error_set(err, EINVAL, "cannot map: unknown flags");
	if (w->info.read_only && !(o->flags & WEFT_MAP_READ_ONLY))
		return weft_error_set(err, EROFS,
			"cannot map: the handle does not write; WEFT_MAP_READ_ONLY would do");
	if (o->handlers > MAP_HANDLERS_MAX)
		return weft_error_set(err, EINVAL, "cannot map: %u handlers are more than %d",
			o->handlers, MAP_HANDLERS_MAX);
	if (!o->unit_bytes)
		o->unit_bytes = default_unit(w);
	if (!is_power_of_two(o->unit_bytes) || o->unit_bytes < weft_page_bytes() ||
		o->unit_bytes > UNIT_MAX)
		return weft_error_set(err, EINVAL,
			"cannot map: unit_bytes is a power of two from a page to 1 MiB, not "
			"%" PRIu64,
			o->unit_bytes);
	if (o->mode > WEFT_MAP_RESIDENT)
		return weft_error_set(err, EINVAL, "cannot map: there is no mode %u", o->mode);
	if (o->mode == WEFT_MAP_RESIDENT && o->local_bytes)
		return weft_error_set(err, EINVAL,
			"cannot map: local_bytes is no bound of a map that is resident");
	if (!o->local_bytes)
		o->local_bytes = LOCAL_DEFAULT;
	return 0;
}

static unsigned default_handlers(void)
{
	cpu_set_t set;
	int nr = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return (unsigned)weft_min((uint64_t)nr, HANDLERS_DEFAULT);
}

/* nr: of units that there is room for. */
static void choose_writes(struct weft_map *m, uint64_t nr)
{
	const uint64_t units = weft_max(nr / 32, 2);

	m->write_units =
		(uint32_t)weft_max(weft_min(MAP_WRITE_BYTES / m->unit_bytes, units / 2), 1);
	m->nr_writes = (unsigned)weft_min(units / m->write_units, MAP_WRITES_MAX);
}

/* The bound holds slots, the buffers of WRITEs, and those of handlers. */
static int choose_sizes(struct weft_map *m, const struct weft_map_options *o,
	struct weft_error *err)
{
	m->unit_bytes = o->unit_bytes;
	m->grain_bytes = weft_max(o->unit_bytes / MAP_MASK_BITS, weft_page_bytes());
	m->grain_bytes = weft_max(m->grain_bytes, m->w->info.min_block_bytes);
	m->grains = (unsigned)(o->unit_bytes / m->grain_bytes);
	m->map_bytes = weft_whole_pages(m->len);
	m->nr_units = (m->map_bytes + o->unit_bytes - 1) / o->unit_bytes;
	const bool is_bound = o->mode != WEFT_MAP_RESIDENT;
	uint64_t nr = is_bound ? o->local_bytes / o->unit_bytes : m->nr_units;
	choose_writes(m, nr);
	m->nr_handlers = o->handlers ? o->handlers : default_handlers();
	const uint64_t nr_buffers = (uint64_t)m->nr_writes * m->write_units;
	if (is_bound && nr < MAP_MIN_FRAMES + nr_buffers)
		return weft_error_set(err, EINVAL,
			"cannot map: local_bytes is %" PRIu64 " at least with units of %" PRIu64,
			(MAP_MIN_FRAMES + nr_buffers) * o->unit_bytes, o->unit_bytes);
	if (is_bound)
		nr -= weft_min(nr_buffers + m->nr_handlers, nr - MAP_MIN_FRAMES);
	nr = weft_max(weft_min(nr, m->nr_units), MAP_MIN_FRAMES);
	if (m->nr_units >= MAP_HEALING - 1)
		return weft_error_set(err, EFBIG,
			"cannot map: the map would have more than 2^32 units; take larger ones");
	m->nr_frames = (uint32_t)nr;
	m->run_max = (uint32_t)weft_min(
		weft_max(MAP_RUN_BYTES / m->unit_bytes, 1), MAP_RUN_MAX);
	return 0;
}

/* ---- making ---- */

static int make_tables(struct weft_map *m, struct weft_error *err)
{
	m->units = weft_map_bytes(m->nr_units * sizeof(m->units[0]));
	m->frames = weft_map_bytes(m->nr_frames * sizeof(m->frames[0]));
	m->hashes = weft_map_bytes((uint64_t)m->nr_frames * m->grains * sizeof(m->hashes[0]));
	m->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	m->written = weft_map_bytes(m->nr_units * sizeof(m->written[0]));
	if (!m->units || !m->frames || !m->hashes || !m->written || m->stop_fd < 0)
		return weft_error_set(err, ENOMEM, "cannot map: out of memory");
	map_list_init(&m->free);
	map_list_init(&m->resident);
	map_list_init(&m->clean);
	map_list_init(&m->urgent);
	map_list_init(&m->aged);
	for (uint32_t i = 0; i < m->nr_frames; i++)
		map_list_add(m, &m->free, i);
	return 0;
}

static struct weft_map *new_map(struct weft *w, uint64_t off, uint64_t len,
	const struct weft_map_options *o)
{
	const struct bridge_attachment_config *attach = &bridge_attachment(w->bridge)->config;
	struct weft_map *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->w = w;
	m->uffd = m->pagemap = m->stop_fd = m->file = m->empty = -1;
	m->off = off;
	m->len = len;
	m->around = 1;
	m->dead_ns = ((uint64_t)attach->timeout_ms + attach->dead_timeout_ms) * UINT64_C(1000000);
	m->forced = MAP_NO_FRAME;
	m->read_only = o->flags & WEFT_MAP_READ_ONLY;
	m->on_lost = o->on_lost;
	m->on_lost_ctx = o->on_lost_ctx;
	weft_random(&m->hash_seed, sizeof(m->hash_seed));
	pthread_mutex_init(&m->scan_lock, NULL);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	weft_cond_init(&m->news_cond);
	weft_cond_init(&m->room_cond);
	return m;
}

static void unmap_table(void *at, uint64_t bytes)
{
	if (at)
		munmap(at, bytes);
}

static void free_map(struct weft_map *m)
{
	if (!m)
		return;
	map_join_room(m);
	map_join_pump(m);
	if (m->nr_threads > 0)
		map_join_handlers(m);
	/* What a device may write to yet is not given to others. */
	if (library_deregister(m->w, m->slots) < 0)
		m->stage = NULL;
	map_end_mappings(m);
	map_pump_fini(m);
	unmap_table(m->units, m->nr_units * sizeof(m->units[0]));
	unmap_table(m->written, m->nr_units * sizeof(m->written[0]));
	unmap_table(m->frames, m->nr_frames * sizeof(m->frames[0]));
	unmap_table(m->hashes, (uint64_t)m->nr_frames * m->grains * sizeof(m->hashes[0]));
	pthread_cond_destroy(&m->news_cond);
	pthread_cond_destroy(&m->room_cond);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	pthread_mutex_destroy(&m->scan_lock);
	free(m);
}

static void add_to_handle(struct weft_map *m)
{
	pthread_mutex_lock(&m->w->lock);
	m->next = m->w->maps;
	m->w->maps = m;
	atomic_fetch_add(&m->w->nr_maps, 1);
	pthread_mutex_unlock(&m->w->lock);
}

static void take_from_handle(struct weft_map *m)
{
	struct weft_map **at = &m->w->maps;

	pthread_mutex_lock(&m->w->lock);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	atomic_fetch_sub(&m->w->nr_maps, 1);
	pthread_mutex_unlock(&m->w->lock);
}

static int start_map(struct weft_map *m, const struct weft_map_options *o, struct weft_error *err)
{
	int r = choose_sizes(m, o, err);

	if (r == 0)
		r = map_probe(m, o->flags, o->mode, err);
	if (r == 0)
		r = make_tables(m, err);
	if (r == 0)
		r = map_make_mappings(m, err);
	/* Where that cannot be, a READ goes through the lane's buffers, as for any memory. */
	if (r == 0 && m->mode->whole && library_has_registered(m->w))
		library_register(m->w, m->stage, m->map_bytes, &m->slots);
	if (r == 0)
		r = map_pump_init(m, err);
	if (r == 0)
		r = map_start_pump(m, err);
	if (r == 0)
		r = map_start_room(m, err);
	return r == 0 ? map_start_handlers(m, err) : r;
}

int weft_map(struct weft *w, uint64_t off, uint64_t len, const struct weft_map_options *options,
	struct weft_map **ret, char *why, size_t why_size)
{
	struct weft_error err = {0};
	struct weft_map_options o;
	struct weft_map *m = NULL;
	bool is_default = false;
	int r = library_lane_in_completion
		? weft_error_set(&err, EDEADLK, "cannot map: a completion must not block")
		: copy_options(options, &o, &err);

	if (r == 0) {
		is_default = o.unit_bytes == 0;
		r = check_options(w, &o, &err);
	}
	if (r == 0)
		r = check_place(w, off, len, o.unit_bytes, &err);
	if (r == 0) {
		m = new_map(w, off, len, &o);
		if (m && is_default)
			m->around = (uint32_t)weft_max(UNIT_DEFAULT / o.unit_bytes, 1);
		r = m ? start_map(m, &o, &err)
		      : weft_error_set(&err, ENOMEM, "cannot map: out of memory");
	}
	if (r < 0) {
		free_map(m);
	} else {
		add_to_handle(m);
		*ret = m;
		if (m->user_faults_only)
			weft_error_set(&err, EPERM,
				"system calls get EFAULT for parts of the map that are not here: "
				"prefetch them, or let this user open /dev/userfaultfd");
	}
	if (why_size > 0)
		snprintf(why, why_size, "%s", err.message);
	return r;
}

int weft_unmap(struct weft_map *m, unsigned flags)
{
	if (!m)
		return 0;
	if (flags & ~(unsigned)WEFT_UNMAP_DISCARD)
		return -EINVAL;
	if (library_lane_in_completion)
		return -EDEADLK;
	if (!(flags & WEFT_UNMAP_DISCARD)) {
		int r = map_sync_units(m, 0, m->nr_units);

		if (r < 0)
			return r;
	}
	take_from_handle(m);
	free_map(m);
	return 0;
}

void *weft_map_addr(const struct weft_map *m)
{
	return m->base;
}

/* ---- what callers ask ---- */

/* The units that have any of the bytes.  0, or -EINVAL: some are not in the map. */
static int units_of(const struct weft_map *m, const void *addr, uint64_t len, uint64_t *ret_first,
	uint64_t *ret_end)
{
	const uint64_t from = (uintptr_t)addr - (uintptr_t)m->base;

	if (library_lane_in_completion)
		return -EDEADLK;
	if ((uintptr_t)addr < (uintptr_t)m->base || from > m->map_bytes ||
		len > m->map_bytes - from)
		return -EINVAL;
	*ret_first = from / m->unit_bytes;
	*ret_end = len == 0 ? *ret_first : (from + len - 1) / m->unit_bytes + 1;
	return 0;
}

int weft_map_sync(struct weft_map *m, const void *addr, size_t len, unsigned flags)
{
	uint64_t first, end;
	int r = flags & ~(unsigned)(WEFT_MAP_FLUSH | WEFT_MAP_MARK)
		? -EINVAL
		: units_of(m, addr, len, &first, &end);

	if (r == 0 && flags & WEFT_MAP_MARK)
		r = map_sync_units(m, 0, m->nr_units);
	else if (r == 0 && first < end)
		r = map_sync_units(m, first, end);
	if (r == 0 && flags & WEFT_MAP_MARK)
		r = weft_mark(m->w);
	else if (r == 0 && flags & WEFT_MAP_FLUSH && !m->read_only)
		r = library_call(m->w, TP_FLUSH, NULL, 0, 0);
	return r;
}

/* Under the lock.  1: the unit is in the map; 0: it will be, or try again; or -errno. */
static int bring(struct weft_map *m, uint64_t unit)
{
	uint32_t frame = map_frame_of(m, unit);

	if (m->lost)
		return m->lost;
	if (map_is_poisoned(m, unit))
		return -EIO;
	if (frame == MAP_NO_FRAME) {
		map_demand(m, unit);
		return 0;
	}
	struct map_frame *f = &m->frames[frame];
	f->ahead = false;
	if (f->state == FRAME_RESIDENT)
		return 1;
	if (f->state == FRAME_STAGED && !f->copying)
		map_bring_back(m, frame, 1);
	else
		f->wanted = f->state != FRAME_RETURNING;
	return 0;
}

static void wait_for_any(struct weft_map *m)
{
	m->nr_waiting++;
	pthread_cond_wait(&m->changed, &m->lock);
	m->nr_waiting--;
}

static int bring_all(struct weft_map *m, uint64_t first, uint64_t end)
{
	int r = 1;

	if (!m->mode->whole && end - first > m->nr_frames / 4 * 3)
		return -ENOSPC;
	pthread_mutex_lock(&m->lock);
	/* All are asked for before the first is waited for. */
	for (uint64_t unit = first; unit < end && r >= 0; unit++)
		r = bring(m, unit);
	for (uint64_t unit = first; unit < end && r >= 0;) {
		r = bring(m, unit);
		if (r == 1)
			unit++;
		else if (r == 0 && map_frame_of(m, unit) != MAP_NO_FRAME &&
			m->frames[map_frame_of(m, unit)].state == FRAME_RESIDENT)
			unit++;
		else if (r == 0)
			wait_for_any(m);
	}
	pthread_mutex_unlock(&m->lock);
	return r < 0 ? r : 0;
}

int weft_map_prefetch(struct weft_map *m, const void *addr, size_t len, unsigned flags)
{
	uint64_t first, end;
	int r = flags & ~(unsigned)WEFT_MAP_WAIT ? -EINVAL : units_of(m, addr, len, &first, &end);

	if (r < 0 || first == end)
		return r;
	if (flags & WEFT_MAP_WAIT)
		return bring_all(m, first, end);
	pthread_mutex_lock(&m->lock);
	r = m->lost ? m->lost : map_want(m, first, end - first, 1, MAP_NO_UNIT) ? 0 : -EAGAIN;
	pthread_mutex_unlock(&m->lock);
	return r;
}

/* Gives the memory of a frame back to the machine.  Under the lock, which it may release. */
static void release(struct weft_map *m, uint32_t frame)
{
	map_empty_frame(m, frame);
	if (!m->mode->shares)
		map_drop_slots(m, frame, 1);
}

int weft_map_evict(struct weft_map *m, const void *addr, size_t len)
{
	uint64_t first, end;
	int r = units_of(m, addr, len, &first, &end), busy = 0;

	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	for (uint64_t unit = first; unit < end && !m->lost && !m->mode->whole; unit++) {
		uint32_t frame = map_frame_of(m, unit);

		if (frame == MAP_NO_FRAME)
			continue;
		if (m->frames[frame].state == FRAME_RESIDENT && !m->frames[frame].copying) {
			r = map_evict_frame(m, frame);
			busy = r < 0 ? r : busy;
		}
		frame = map_frame_of(m, unit);
		if (frame != MAP_NO_FRAME && m->frames[frame].list == &m->clean)
			release(m, frame);
	}
	map_tell_pump(m);
	pthread_mutex_unlock(&m->lock);
	return busy;
}

int weft_map_advise(struct weft_map *m, int advice)
{
	if (advice != WEFT_MAP_NORMAL && advice != WEFT_MAP_RANDOM)
		return -EINVAL;
	pthread_mutex_lock(&m->lock);
	m->random = advice == WEFT_MAP_RANDOM;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

int weft_map_stats(struct weft_map *m, struct weft_map_stats *ret)
{
	struct weft_map_stats s = {0};

	if (ret->size < sizeof(size_t) + sizeof(s.mode))
		return -EINVAL;
	pthread_mutex_lock(&m->lock);
	s = (struct weft_map_stats){
		.size = ret->size,
		.mode = m->mode->name,
		.user_faults_only = m->user_faults_only,
		.error = m->lost ? m->lost : m->write_error,
		.local_bytes = (m->nr_frames + (uint64_t)m->nr_writes * m->write_units +
				       m->nr_handlers) *
			m->unit_bytes,
		.resident_bytes = m->resident.nr * m->unit_bytes,
		.staged_bytes = (m->nr_frames - m->free.nr - m->resident.nr) * m->unit_bytes,
		.dirty_bytes = m->nr_dirty_grains * m->grain_bytes,
		.poisoned_bytes = m->nr_poisoned * m->unit_bytes,
		.faults = m->counts.faults,
		.fetched = m->counts.fetched,
		.fetched_ahead = m->counts.ahead,
		.returned = m->counts.returned,
		.evicted = m->counts.evicted,
		.evicted_dirty = m->counts.evicted_dirty,
		.pinned = m->counts.pinned,
		.read_bytes = m->counts.read_bytes,
		.written_bytes = m->counts.written_bytes,
		.write_errors = m->counts.write_errors,
	};
	pthread_mutex_unlock(&m->lock);
	memcpy(ret, &s, weft_min(ret->size, sizeof(s)));
	return 0;
}
