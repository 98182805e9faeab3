/* SPDX-License-Identifier: MIT */
/*
 * What the pump writes back: which grains go together, and their bytes.  Units that follow one
 * another go home by one WRITE, if nothing between them is clean: far away a WRITE for each would
 * fill but a part of the way.  The pump's thread, under the lock.
 */
#include "nbd-bridge/library/map-private.h"

#define MS_NS UINT64_C(1000000)

enum {
	AGE_MS = 900,   /* dirt that is so old is written back */
	RETRY_MS = 500, /* after a WRITE has failed */
	LOOK_AT = 16,   /* frames, for one that can be written */
};

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

static void part_ended(struct weft_map *m, const struct map_part *part, int error)
{
	struct map_frame *f = &m->frames[part->frame];

	f->writing &= ~part->grains;
	f->alone = error != 0;
	if (error != 0)
		map_mark_dirty(m, part->frame, part->grains, f->writing_seq);
	/* What was written again meanwhile may be sent now. */
	uint64_t dirty = f->dirty;
	if (dirty && !f->in_dirty)
		map_mark_dirty(m, part->frame, dirty, f->dirty_seq);
	map_settle(m, part->frame);
}

void map_write_ended(struct weft_map *m, struct map_io *io)
{
	int error = io->command.status;

	if (error == 0) {
		m->counts.written_bytes += io->command.len;
	} else {
		m->counts.write_errors++;
		m->nr_write_errors++;
		m->write_error = error;
		m->retry_ns = weft_now_ns() + RETRY_MS * MS_NS;
		pthread_cond_broadcast(&m->changed); /* sync says so, of whatever unit */
	}
	for (uint32_t i = 0; i < io->nr; i++)
		part_ended(m, &io->parts[i], error);
}

/* In its unit. */
static uint64_t first_byte(const struct weft_map *m, const struct map_part *part)
{
	return (unsigned)__builtin_ctzll(part->grains) * m->grain_bytes;
}

static uint64_t nr_bytes(const struct weft_map *m, const struct map_part *part)
{
	return (unsigned)__builtin_popcountll(part->grains) * m->grain_bytes;
}

/* The frame's pages stay where they are until they are copied. */
static void add_part(struct weft_map *m, struct map_io *io, uint32_t frame)
{
	struct map_frame *f = &m->frames[frame];
	const uint64_t grains = first_run(f->dirty & ~f->writing);

	io->parts[io->nr++] = (struct map_part){.frame = frame, .grains = grains};
	f->writing_seq = f->writing ? weft_min(f->writing_seq, f->dirty_seq) : f->dirty_seq;
	f->writing |= grains;
	f->dirty &= ~grains;
	m->nr_dirty_grains -= (unsigned)__builtin_popcountll(grains);
	if (!(f->dirty & ~f->writing))
		map_undirty(m, frame);
	if (!f->dirty)
		f->urgent = false;
	f->copying = true;
}

/* The frame whose dirt follows what the WRITE has, and is to go home too; or MAP_NO_FRAME. */
static uint32_t what_follows(const struct weft_map *m, const struct map_io *io, uint64_t before_ns)
{
	const struct map_part *last = &io->parts[io->nr - 1];
	const uint64_t unit = m->frames[last->frame].unit, all = map_unit_grains(m, unit);

	if (!(last->grains & all & ~(all >> 1)) || unit + 1 == m->nr_units)
		return MAP_NO_FRAME;
	const uint32_t frame = map_frame_of(m, unit + 1);
	if (frame == MAP_NO_FRAME)
		return MAP_NO_FRAME;
	const struct map_frame *f = &m->frames[frame];
	const bool is_due = f->urgent || f->dirty_ns < before_ns;
	const bool goes_along = is_due && can_write(f) && !f->alone;
	return goes_along && f->dirty & ~f->writing & 1 ? frame : MAP_NO_FRAME;
}

bool map_choose_write(struct weft_map *m, struct map_io *io)
{
	const uint64_t before_ns = weft_now_ns() - AGE_MS * MS_NS;
	uint32_t frame = find_writable(m, &m->urgent, UINT64_MAX);

	if (frame == MAP_NO_FRAME)
		frame = find_writable(m, &m->aged, before_ns);
	if (frame == MAP_NO_FRAME)
		return false;
	const struct map_frame *f = &m->frames[frame];
	const uint32_t max = f->alone ? 1 : map_run_from(m, f->unit, m->write_units);
	io->frame = frame;
	io->nr = 0;
	do {
		add_part(m, io, frame);
		frame = io->nr < max ? what_follows(m, io, before_ns) : MAP_NO_FRAME;
	} while (frame != MAP_NO_FRAME);
	return true;
}

static void copy_parts(struct weft_map *m, const struct map_io *io, struct map_copy *ret)
{
	uint8_t *to = io->buf;

	for (uint32_t i = 0; i < io->nr; i++) {
		const struct map_part *part = &io->parts[i];
		const uint64_t unit = m->frames[part->frame].unit, first = first_byte(m, part);

		ret[i] = (struct map_copy){.frame = part->frame,
			.first = first,
			.to = to,
			.len = weft_min(nr_bytes(m, part), map_unit_bytes(m, unit) - first)};
		to += ret[i].len;
	}
}

/* One that could not be copied fails all of them: each is sent alone then. */
static void copied(struct weft_map *m, struct map_io *io, const struct map_copy *copies)
{
	io->command.status = 0;
	for (uint32_t i = 0; i < io->nr; i++) {
		const struct map_part *part = &io->parts[i];

		if (part->grains & ~m->frames[part->frame].hashed)
			map_hash(m, part->frame, part->grains, copies[i].to);
		if (copies[i].error < 0)
			io->command.status = copies[i].error;
	}
}

/* Releases the lock. */
static void copy_out(struct weft_map *m, struct map_io **ios, unsigned nr)
{
	struct map_copy copies[MAP_COPIES];
	unsigned n = 0;

	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < nr; n += ios[i++]->nr)
		copy_parts(m, ios[i], copies + n);
	map_read_all(m, copies, n);
	n = 0;
	for (unsigned i = 0; i < nr; n += ios[i++]->nr)
		copied(m, ios[i], copies + n);
	pthread_mutex_lock(&m->lock);
}

/* May release the lock. */
static void show_wanted(struct weft_map *m, uint32_t frame)
{
	const struct map_frame *f = &m->frames[frame];

	if (f->state == FRAME_STAGED && f->wanted)
		map_bring_back(m, frame, 1);
}

/* Whoever waits for one waits for no other, nor for the sending.  May release the lock. */
static void let_go(struct weft_map *m, struct map_io **ios, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		for (uint32_t k = 0; k < ios[i]->nr; k++) {
			m->frames[ios[i]->parts[k].frame].copying = false;
			map_changed(m, ios[i]->parts[k].frame);
		}
	}
	for (unsigned i = 0; i < nr; i++)
		for (uint32_t k = 0; k < ios[i]->nr; k++)
			show_wanted(m, ios[i]->parts[k].frame);
}

void map_copy_writes(struct weft_map *m, struct map_io **ios, unsigned nr)
{
	copy_out(m, ios, nr);
	let_go(m, ios, nr);
}

void map_write_place(const struct weft_map *m, const struct map_io *io, uint64_t *ret_off,
	uint64_t *ret_len)
{
	const struct map_part *last = &io->parts[io->nr - 1];
	const uint64_t unit = m->frames[last->frame].unit;
	const uint64_t off =
		map_unit_off(m, m->frames[io->frame].unit) + first_byte(m, &io->parts[0]);
	const uint64_t end = map_unit_off(m, unit) +
		weft_min(first_byte(m, last) + nr_bytes(m, last), map_unit_data(m, unit));

	*ret_off = off;
	*ret_len = end - off;
}
