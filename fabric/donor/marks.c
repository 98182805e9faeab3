/* SPDX-License-Identifier: MIT */
/*
 * The marks of regions (fabric/marking.h, tests/model/marks.pml).  A mark lives as long as this
 * donor has the region open: its first number is random, so that none comes twice.  Any thread.
 */
#include <errno.h>

#include "fabric/base/util.h"
#include "fabric/donor/donor-private.h"

static void change(struct weft_region *region, uint64_t number)
{
	if (weft_is_marked(region->mark) != weft_is_marked(number) || !region->mark_since_ns)
		region->mark_since_ns = weft_boottime_ns();
	region->was_marked |= weft_is_marked(number);
	region->mark = number;
}

static void look(struct weft_region *region)
{
	uint64_t first;

	if (region->mark)
		return;
	weft_random(&first, sizeof(first));
	change(region, first | 1);
}

void donor_raise_mark(struct weft_region *region)
{
	look(region);
	change(region, region->mark + (weft_is_marked(region->mark) ? 1 : 2));
}

/* An equal number that is set already: the answer to an earlier question got lost. */
static int set(struct weft_region *region, uint64_t from)
{
	if (weft_is_marked(from) || (region->mark != from && region->mark != from + 1))
		return -EBUSY;
	if (region->mark == from)
		change(region, from + 1);
	return 0;
}

static int answer(const struct weft_grant *grant, const struct weft_marking *asked)
{
	look(grant->region);
	if (asked->action == WEFT_MARK_ASK)
		return 0;
	if (asked->action > WEFT_MARK_SET)
		return -EOPNOTSUPP;
	if (!grant->writable)
		return -EPERM;
	if (asked->action == WEFT_MARK_SET)
		return set(grant->region, asked->number);
	donor_raise_mark(grant->region);
	return 0;
}

static struct weft_marked mark_of(const struct weft_region *region)
{
	return (struct weft_marked){
		.number = region->mark,
		.age_ms = (weft_boottime_ns() - region->mark_since_ns) / NS_PER_MS,
	};
}

int weft_donor_mark(struct weft_donor *donor, const struct weft_grant *grant,
	const struct weft_hashing *hashing, uint8_t ret[WEFT_HASH_BYTES])
{
	struct weft_marking asked;

	weft_marking_unpack(hashing, &asked);
	pthread_mutex_lock(&donor->lock);
	int r = atomic_load(&grant->fenced) ? -ESHUTDOWN : answer(grant, &asked);
	const struct weft_marked marked = mark_of(grant->region);
	pthread_mutex_unlock(&donor->lock);
	if (r == 0)
		weft_marked_pack(&marked, ret);
	return r;
}

void weft_donor_mark_of(struct weft_region *region, struct weft_marked *ret)
{
	look(region);
	*ret = mark_of(region);
}
