/* SPDX-License-Identifier: MIT */
/*
 * What the donor notes of regions that are copies of a device (fabric/copying.h,
 * tests/model/copies.pml).  The notes are kept as long as the contents: in the header of memory.
 * Any thread.
 */
#include <errno.h>
#include <string.h>

#include "fabric/donor/donor-private.h"

static bool is_claimers(const struct weft_copies *copies, const struct weft_attachment *who)
{
	return memcmp(copies->claimer, who->id_hash, sizeof(copies->claimer)) == 0;
}

/* A lower term is over.  Its owner may ask for the same one again: an answer can be lost. */
static bool may_claim(const struct weft_copies *copies, uint64_t term,
	const struct weft_attachment *who)
{
	return term > copies->claimed || (term == copies->claimed && is_claimers(copies, who));
}

static void claim(struct weft_copies *copies, uint64_t term, const struct weft_attachment *who)
{
	copies->claimed = term;
	memcpy(copies->claimer, who->id_hash, sizeof(copies->claimer));
}

static bool is_of(const struct weft_copies *copies, const struct weft_copy_of *of)
{
	return copies->set == of->set && copies->index == of->index &&
		copies->count == of->count && copies->min == of->min;
}

static void make(struct weft_copies *copies, const struct weft_copies_asked *asked,
	const struct weft_attachment *who)
{
	if (asked->term != copies->claimed || !is_claimers(copies, who) || copies->term)
		return;
	copies->set = asked->of.set;
	copies->index = asked->of.index;
	copies->count = asked->of.count;
	copies->min = asked->of.min;
	copies->members = weft_copies_all(asked->of.count);
	copies->change = WEFT_COPIES_MAKING;
	copies->regions = 0;
	copies->ended = 0;
}

static int compare(const struct weft_copies *copies, const struct weft_copies_asked *asked)
{
	if (copies->term != asked->term)
		return copies->term < asked->term ? -1 : 1;
	return (copies->change > asked->change) - (copies->change < asked->change);
}

/*
 * Also under a term that another has claimed, and noted nothing under: who notes has claimed it at
 * so many donors that nobody else could.
 */
static bool may_note(const struct weft_copies *copies, uint64_t term,
	const struct weft_attachment *who)
{
	return may_claim(copies, term, who) || (term == copies->claimed && term > copies->term);
}

/* A copy that has notes of no set joins that of the question. */
static void note(struct weft_copies *copies, const struct weft_copies_asked *asked,
	const struct weft_attachment *who)
{
	if (!may_note(copies, asked->term, who) || (copies->set && !is_of(copies, &asked->of)) ||
		compare(copies, asked) >= 0)
		return;
	claim(copies, asked->term, who);
	copies->set = asked->of.set;
	copies->index = asked->of.index;
	copies->count = asked->of.count;
	copies->min = asked->of.min;
	copies->term = asked->term;
	copies->change = asked->change;
	copies->members = asked->members;
	copies->regions = asked->regions;
	copies->ended = 0;
}

static void end(struct weft_copies *copies, const struct weft_copies_asked *asked,
	const struct weft_attachment *who)
{
	if (is_claimers(copies, who) && is_of(copies, &asked->of) && compare(copies, asked) == 0)
		copies->ended = 1;
}

static int change(struct weft_region *region, const struct weft_copies_asked *asked,
	const struct weft_attachment *who)
{
	struct weft_copies copies = region->copies;

	if (asked->term == 0 ||
		(asked->action != WEFT_COPIES_CLAIM && !weft_copy_of_valid(&asked->of)) ||
		(asked->action == WEFT_COPIES_NOTE &&
			(!weft_copies_members_valid(&asked->of, asked->members) ||
				!weft_copies_regions_valid(asked->of.count,
					asked->regions))))
		return -EINVAL;
	/* Notes do not move with the region. */
	if (region->move)
		return -EBUSY;
	switch (asked->action) {
	case WEFT_COPIES_CLAIM:
		if (may_claim(&copies, asked->term, who))
			claim(&copies, asked->term, who);
		break;
	case WEFT_COPIES_MAKE:
		make(&copies, asked, who);
		break;
	case WEFT_COPIES_NOTE:
		note(&copies, asked, who);
		break;
	case WEFT_COPIES_END:
		end(&copies, asked, who);
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (memcmp(&copies, &region->copies, sizeof(copies)) != 0)
		weft_region_note_copies(region, &copies);
	return 0;
}

/* Somebody else may have written something else than what a new set would have. */
static bool is_used(const struct weft_region *region, const struct weft_attachment *who)
{
	bool used = region->copies.foreign || region->tenure_owner != 0;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		const struct weft_generation *gen = &region->generations[i];

		used |= gen->generation &&
			memcmp(gen->id_hash, who->id_hash, sizeof(gen->id_hash)) != 0;
	}
	return used;
}

static struct weft_copies_answer answer_of(const struct weft_region *region,
	const struct weft_attachment *who)
{
	const struct weft_copies *copies = &region->copies;

	return (struct weft_copies_answer){
		.of = {.set = copies->set,
			.index = copies->index,
			.count = copies->count,
			.min = copies->min},
		.claimed = copies->claimed,
		.term = copies->term,
		.change = copies->change,
		.members = copies->members,
		.regions = copies->regions,
		.ended = copies->ended,
		.mine = copies->claimed && is_claimers(copies, who),
		.used = is_used(region, who),
		.foreign = copies->foreign,
	};
}

int weft_donor_copies(struct weft_donor *donor, const struct weft_grant *grant,
	const struct weft_hashing *hashing, uint8_t ret[WEFT_COPIES_BYTES])
{
	struct weft_copies_answer answer;
	struct weft_copies_asked asked;
	int r = 0;

	weft_copies_ask_unpack(hashing, &asked);
	pthread_mutex_lock(&donor->lock);
	if (atomic_load(&grant->fenced))
		r = -ESHUTDOWN;
	else if (grant->region->backing != WEFT_BACKING_MEMORY || grant->attachment->anonymous)
		r = -EOPNOTSUPP;
	else if (asked.action != WEFT_COPIES_ASK)
		r = grant->writable ? change(grant->region, &asked, grant->attachment) : -EPERM;
	if (r == 0)
		answer = answer_of(grant->region, grant->attachment);
	pthread_mutex_unlock(&donor->lock);
	if (r == 0)
		weft_copies_answer_pack(&answer, ret);
	return r;
}

int donor_check_copies(const struct weft_region *region, const struct weft_hello *hello,
	struct weft_error *err)
{
	if (!region->copies.set || (!hello->anonymous && hello->copies) ||
		donor_gives_up_contents(hello))
		return 0;
	return weft_error_set(err, EINVAL,
		"region '%.60s' is copy %u of %u of a device, and alone it may be out of date: "
		"attach all of them together; to give its contents up: --new-contents",
		region->name, region->copies.index, region->copies.count);
}

void donor_enter_copies(struct weft_region *region, const struct weft_hello *hello)
{
	struct weft_copies copies = region->copies;

	if (region->backing != WEFT_BACKING_MEMORY)
		return;
	if (donor_gives_up_contents(hello))
		memset(&copies, 0, sizeof(copies));
	if (hello->anonymous || !hello->copies)
		copies.foreign = 1;
	if (memcmp(&copies, &region->copies, sizeof(copies)) != 0)
		weft_region_note_copies(region, &copies);
}
