/* SPDX-License-Identifier: MIT */
/* Which copies are current, by what their donors have noted; see agree.h. */
#include "nbd-bridge/link/agree.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

static uint16_t bit_of(unsigned i)
{
	return (uint16_t)(1U << i);
}

static unsigned nr_of(uint16_t set)
{
	return (unsigned)__builtin_popcount(set);
}

static bool is_copy(const struct weft_copy_of *of, uint64_t set, unsigned index, unsigned count,
	unsigned min)
{
	return of->set == set && of->index == index + 1 && of->count == count && of->min == min;
}

bool agree_may_be_target(const struct weft_copies_answer *said, uint64_t set, unsigned index,
	unsigned count, unsigned min)
{
	return said->of.set ? is_copy(&said->of, set, index, count, min) : !said->foreign;
}

uint64_t agree_next_term(const struct agree_copy *copies, unsigned count)
{
	uint64_t highest = 0;

	for (unsigned i = 0; i < count; i++)
		if (copies[i].answers)
			highest = weft_max(highest, copies[i].said.claimed);
	return highest + 1;
}

const char *agree_generation(const struct weft_copies_answer *said, char *ret)
{
	if (said->of.set && said->term)
		snprintf(ret, AGREE_GENERATION_MAX, "%" PRIu64 ".%" PRIu32, said->term,
			said->change);
	else
		snprintf(ret, AGREE_GENERATION_MAX, "none");
	return ret;
}

/* What the copies that answer have in common. */
struct answers {
	const struct agree_copy *copies;
	unsigned count, min;
	uint16_t answer, noted; /* copies that answer; … and have notes */
	uint16_t in_place; /* those of noted whose regions were not replaced */
	const struct weft_copies_answer *newest; /* of the highest generation; NULL: none noted */
};

static bool is_newer(const struct weft_copies_answer *a, const struct weft_copies_answer *b)
{
	return a->term != b->term ? a->term > b->term : a->change > b->change;
}

/* Notes of a region that was replaced say nothing of this set any more. */
static uint16_t replaced(const struct answers *all)
{
	uint16_t copies = 0;

	for (unsigned i = 0; i < all->count; i++)
		if ((all->noted & bit_of(i)) &&
			agree_region(&all->copies[i].said, i) != agree_region(all->newest, i))
			copies |= bit_of(i);
	return copies;
}

static struct answers look(const struct agree_copy *copies, unsigned count, unsigned min)
{
	struct answers all = {.copies = copies, .count = count, .min = min};

	for (unsigned i = 0; i < count; i++) {
		const struct weft_copies_answer *said = &copies[i].said;

		if (!copies[i].answers)
			continue;
		all.answer |= bit_of(i);
		if (!said->of.set)
			continue;
		all.noted |= bit_of(i);
		if (!all.newest || is_newer(said, all.newest))
			all.newest = said;
	}
	all.in_place = all.noted & (uint16_t)~replaced(&all);
	return all;
}

/*
 * False: a copy is not what it is meant to be.  set 0: of whichever set, as each borrower that
 * began to make one has drawn a number.
 */
static bool are_alike(const struct answers *all, uint64_t set, struct agree_answer *ret)
{
	for (unsigned i = 0; i < all->count; i++)
		if ((all->noted & bit_of(i)) &&
			!is_copy(&all->copies[i].said.of,
				set ? set : all->copies[i].said.of.set, i, all->count, all->min)) {
			ret->verdict = AGREE_NOT_ALIKE;
			ret->about = i;
			return false;
		}
	return true;
}

static void too_few(const struct answers *all, bool of_current, unsigned nr, unsigned needed,
	struct agree_answer *ret)
{
	ret->verdict = nr_of(all->answer) == all->count ? AGREE_LOST : AGREE_WAIT;
	ret->of_current = of_current;
	ret->nr_count = nr;
	ret->nr_needed = needed;
}

static void go_on(const struct answers *all, uint16_t members, bool same, struct agree_answer *ret)
{
	ret->members = members;
	if (nr_of(members) < all->min) {
		too_few(all, true, nr_of(members), all->min, ret);
		return;
	}
	ret->verdict = AGREE_GO_ON;
	ret->differ = !same && nr_of(members) > 1;
	ret->source = (unsigned)__builtin_ctz(members);
	for (unsigned i = 0; i < all->count; i++)
		if ((all->answer & ~members & bit_of(i)) &&
			agree_may_be_target(&all->copies[i].said, ret->set, i, all->count,
				all->min))
			ret->targets |= bit_of(i);
}

/* Whether more was noted than who left the state had told: then the state is an older one. */
static bool is_ahead(const struct weft_copies_answer *said, const struct agree_known *known)
{
	return said->of.set == known->set && said->term == known->term &&
		(said->change > known->change ||
			(said->change == known->change && said->members != known->members));
}

/* As the bridge before was told; some of its members may have other contents by now. */
static void go_on_with_known(const struct answers *all, const struct agree_known *known,
	struct agree_answer *ret)
{
	uint16_t members = 0;

	for (unsigned i = 0; i < all->count; i++) {
		const struct agree_copy *copy = &all->copies[i];

		if (!copy->answers)
			continue;
		if (copy->said.claimed > known->term || is_ahead(&copy->said, known)) {
			ret->verdict = AGREE_STALE;
			ret->about = i;
			return;
		}
		if (copy->epoch == known->epochs[i])
			members |= known->members & bit_of(i);
	}
	ret->set = known->set;
	ret->term = known->term;
	ret->change = known->change + 1;
	memcpy(ret->regions, known->regions, sizeof(ret->regions));
	if (are_alike(all, known->set, ret))
		go_on(all, members, false, ret);
}

/* Each member has noted that the borrower of its generation said goodbye. */
static bool have_ended(const struct answers *all, uint16_t members)
{
	for (unsigned i = 0; i < all->count; i++)
		if ((members & bit_of(i)) &&
			(!(all->noted & bit_of(i)) || !all->copies[i].said.ended))
			return false;
	return true;
}

/* No donor has noted a generation. */
static void make(const struct answers *all, struct agree_answer *ret)
{
	for (unsigned i = 0; i < all->count; i++)
		if (!(all->noted & bit_of(i)) && all->copies[i].said.used) {
			ret->verdict = AGREE_USED;
			ret->about = i;
			return;
		}
	/*
	 * Either the set was being made and whoever did it was killed, or those without notes had
	 * been written to, while the others were left behind at once, and have lost their memory.
	 */
	if (all->noted && all->noted != all->answer) {
		too_few(all, false, nr_of(all->noted), all->count, ret);
		return;
	}
	ret->verdict = AGREE_MAKE;
	ret->members = weft_copies_all((uint8_t)all->count);
}

void agree(const struct agree_copy *copies, unsigned count, unsigned min,
	const struct agree_known *known, struct agree_answer *ret)
{
	assert(count >= 2 && count <= WEFT_COPIES_MAX && min >= 1 && min <= count);
	const struct answers all = look(copies, count, min);
	/* Any so many of them have one in common with the members of each generation. */
	const unsigned needed = count - min + 1;

	*ret = (struct agree_answer){0};
	if (known && known->set) {
		go_on_with_known(&all, known, ret);
		return;
	}
	if (all.newest)
		ret->set = all.newest->of.set;
	ret->replaced = all.noted & (uint16_t)~all.in_place;
	const bool is_noted = all.newest && all.newest->term;
	if (!are_alike(&all, is_noted ? ret->set : 0, ret))
		return;
	if (nr_of(all.answer) == count && !is_noted) {
		make(&all, ret);
		return;
	}
	/* A donor that notes nothing may have forgotten it. */
	if (nr_of(all.in_place) < needed) {
		too_few(&all, false, nr_of(all.in_place), needed, ret);
		return;
	}
	const uint16_t members = all.newest->members;

	for (unsigned i = 0; i < count; i++)
		ret->regions[i] = agree_region(all.newest, i);
	go_on(&all, members & all.in_place,
		(members & ~all.in_place) == 0 && have_ended(&all, members), ret);
}
