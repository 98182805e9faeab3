/* SPDX-License-Identifier: MIT */
/* See history.h. */
#include "tests/torture/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/*
 * The words of a block: the mark, then what only this block of this region of this run has for it.
 */
static uint64_t word(const struct history *h, unsigned block, uint64_t mark, unsigned i)
{
	return i == 0 ? mark : mix(mix(h->seed + block) + mark * 512 + i);
}

void history_init(struct history *h, uint64_t seed)
{
	*h = (struct history){.seed = mix(seed)};
}

static void note(struct history *h, struct history_last *last, const struct view *v)
{
	if (last->view != v) {
		last->other = last->at;
		last->view = v;
	}
	last->at = ++h->now;
}

void view_begin(struct view *v, struct history *h, const char *name, bool write_back,
	bool remembers)
{
	*v = (struct view){.history = h,
		.name = name,
		.write_back = write_back,
		.remembers = remembers,
		.since = ++h->now};
	note(h, &h->granted, v);
}

/* When it last happened for another. */
static uint64_t others(const struct history_last *last, const struct view *v)
{
	return last->view == v ? last->other : last->at;
}

int view_told(const struct view *v, char *why)
{
	const struct history *h = v->history;

	if (h->epoch_since > v->since || others(&h->granted, v) > v->since)
		return 0;
	snprintf(why, HISTORY_WHY, "L: %s is told that it is stale without a cause", v->name);
	return -1;
}

void view_lost_cache(struct view *v)
{
	if (v->write_back)
		memset(v->answered, 0, sizeof(v->answered));
}

void history_bytes(const struct history *h, unsigned block, uint64_t mark, void *bytes)
{
	uint64_t *words = bytes;

	for (unsigned i = 0; i < HISTORY_BLOCK_BYTES / sizeof(*words); i++)
		words[i] = word(h, block, mark, i);
}

uint64_t view_write(struct view *v, unsigned block, void *bytes)
{
	struct history *h = v->history;
	uint64_t mark = ++h->now;

	note(h, &h->granted, v);
	history_bytes(h, block, mark, bytes);
	return mark;
}

/* S1, of something that reached the region and was issued at `at`. */
static int check_writer(const struct view *v, uint64_t at, const char *what, char *why)
{
	const struct history *h = v->history;
	uint64_t wrote = others(&h->wrote, v);

	if (wrote > v->since && wrote < at) {
		snprintf(why, HISTORY_WHY,
			"S1: %s's %s of %" PRIu64 " is answered, though another wrote at %" PRIu64
			" and its view is of %" PRIu64,
			v->name, what, at, wrote, v->since);
		return -1;
	}
	if (h->replaced > v->since && h->replaced < at) {
		snprintf(why, HISTORY_WHY,
			"S1: %s's %s of %" PRIu64
			" is answered, though the contents were lost or put back at %" PRIu64
			" and its view is of %" PRIu64,
			v->name, what, at, h->replaced, v->since);
		return -1;
	}
	return 0;
}

static bool raise_floor(struct history *h, unsigned block, uint64_t mark)
{
	/* One of before the contents were lost or put back says nothing. */
	if (mark <= h->floor[block] || mark <= h->replaced)
		return false;
	h->floor[block] = mark;
	return true;
}

int view_write_answered(struct view *v, unsigned block, uint64_t mark, uint64_t at, char *why)
{
	if (mark > v->answered[block])
		v->answered[block] = mark;
	if (v->write_back)
		return 0;
	int r = check_writer(v, at, "write", why);
	if (at > v->history->replaced)
		raise_floor(v->history, block, mark);
	note(v->history, &v->history->wrote, v);
	return r;
}

uint64_t view_read(struct view *v, unsigned block, uint64_t *ret_at)
{
	struct history *h = v->history;
	uint64_t at_least = h->floor[block];

	if (v->answered[block] > at_least || v->since < h->replaced)
		at_least = v->answered[block];
	*ret_at = ++h->now;
	return at_least;
}

int view_read_answered(struct view *v, unsigned block, uint64_t at_least, uint64_t at,
	const void *bytes, char *why)
{
	const struct history *h = v->history;
	const uint64_t *words = bytes;
	uint64_t mark = words[0];

	for (unsigned i = 0; i < HISTORY_BLOCK_BYTES / sizeof(*words); i++)
		if (words[i] != (mark ? word(h, block, mark, i) : 0)) {
			snprintf(why, HISTORY_WHY,
				"foreign: %s reads in block %u, word %u, what was never written "
				"there (its mark "
				"would be %" PRIu64 ")",
				v->name, block, i, mark);
			return -1;
		}
	if (h->replaced > at)
		return 0;
	if (v->since < h->replaced && !v->remembers) {
		snprintf(why, HISTORY_WHY,
			"S1: %s reads at %" PRIu64
			", though the contents were lost or put back at %" PRIu64
			" and its view is of %" PRIu64,
			v->name, at, h->replaced, v->since);
		return -1;
	}
	if (mark < at_least) {
		snprintf(why, HISTORY_WHY,
			"%s: %s reads mark %" PRIu64 " in block %u at %" PRIu64 ", and %" PRIu64
			" was answered before (the floor is %" PRIu64 ", its view is of %" PRIu64
			")",
			mark ? "S2" : "zeros", v->name, mark, block, at, at_least, h->floor[block],
			v->since);
		return -1;
	}
	if (v->since > h->replaced && mark <= h->replaced && mark > h->newest_before) {
		snprintf(why, HISTORY_WHY,
			"S3: %s reads mark %" PRIu64
			" in block %u, of contents that were lost or put back at %" PRIu64,
			v->name, mark, block, h->replaced);
		return -1;
	}
	return 0;
}

void view_flush(struct view *v, struct snapshot *ret)
{
	ret->at = ++v->history->now;
	memcpy(ret->mark, v->answered, sizeof(ret->mark));
}

int view_flush_answered(struct view *v, const struct snapshot *s, char *why)
{
	struct history *h = v->history;
	int r = v->write_back ? check_writer(v, s->at, "flush", why) : 0;
	bool wrote = false;

	for (unsigned i = 0; i < HISTORY_BLOCKS && s->at > h->replaced; i++)
		wrote |= raise_floor(h, i, s->mark[i]);
	if (v->write_back && wrote)
		note(h, &h->wrote, v);
	return r;
}

void history_new_epoch(struct history *h)
{
	h->epoch_since = ++h->now;
}

void history_copy(const struct history *h, struct snapshot *ret)
{
	ret->at = h->now;
	memcpy(ret->mark, h->floor, sizeof(ret->mark));
}

void history_replaced(struct history *h, const struct snapshot *s)
{
	h->epoch_since = h->replaced = ++h->now;
	h->newest_before = s ? s->at : 0;
	for (unsigned i = 0; i < HISTORY_BLOCKS; i++)
		h->floor[i] = s ? s->mark[i] : 0;
}
