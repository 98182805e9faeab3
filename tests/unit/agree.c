/* SPDX-License-Identifier: MIT */
/*
 * Which copies a borrower goes on with (nbd-bridge/link/agree.h).  Examples first.  Then all that
 * may happen, within bounds: donors that are silent or lose their memory, and a borrower that is
 * killed after any step, whose state is kept or lost.  Whatever is read then has all that was
 * answered or shown.  Donors note what fabric/donor/copies.c notes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <xxhash.h>

#include "fabric/base/util.h"
#include "nbd-bridge/link/agree.h"
/* What a donor does with a question. */
#include "fabric/donor/copies.c"

enum { SET = 7 };

/* ---- examples ---- */

static struct agree_copy copy_of(unsigned i, unsigned count, unsigned min, uint64_t term,
	uint32_t change, uint16_t members, bool ended)
{
	return (struct agree_copy){.answers = true,
		.epoch = 1,
		.said = {.of = {SET, (uint8_t)(i + 1), (uint8_t)count, (uint8_t)min},
			.claimed = 9,
			.mine = true,
			.term = term,
			.change = change,
			.members = members,
			.ended = ended}};
}

static const struct agree_copy blank = {.answers = true, .epoch = 1};
static const struct agree_copy silent;

static struct agree_answer ask_two(struct agree_copy a, struct agree_copy b,
	const struct agree_known *known)
{
	const struct agree_copy copies[] = {a, b};
	struct agree_answer answer;

	agree(copies, 2, 1, known, &answer);
	return answer;
}

#define ONE(term, change, members, ended) copy_of(0, 2, 1, term, change, members, ended)
#define TWO(term, change, members, ended) copy_of(1, 2, 1, term, change, members, ended)

static void a_set_is_made_of_regions_that_were_never_written(void **state)
{
	struct agree_copy used = blank;
	struct agree_answer a = ask_two(blank, blank, NULL);

	assert_true(a.verdict == AGREE_MAKE && a.members == 3 && a.set == 0);
	used.said.used = true;
	a = ask_two(blank, used, NULL);
	assert_true(a.verdict == AGREE_USED && a.about == 1);
	assert_int_equal(ask_two(blank, silent, NULL).verdict, AGREE_WAIT);
	/* Whoever made it was killed, or the other one was used alone and lost its memory. */
	a = ask_two(ONE(0, WEFT_COPIES_MAKING, 3, false), blank, NULL);
	assert_int_equal(a.verdict, AGREE_LOST);
	a = ask_two(ONE(0, WEFT_COPIES_MAKING, 3, false), TWO(0, WEFT_COPIES_MAKING, 3, false),
		NULL);
	assert_true(a.verdict == AGREE_MAKE && a.members == 3);
	/* Two have begun to make one, and none has ended that. */
	used = TWO(0, WEFT_COPIES_MAKING, 3, false);
	used.said.of.set = SET + 1;
	a = ask_two(ONE(0, WEFT_COPIES_MAKING, 3, false), used, NULL);
	assert_true(a.verdict == AGREE_MAKE && a.members == 3);
}

static void a_goodbye_at_all_members_makes_them_the_same(void **state)
{
	struct agree_answer a = ask_two(ONE(1, 2, 3, true), TWO(1, 2, 3, true), NULL);

	assert_true(a.verdict == AGREE_GO_ON && a.members == 3 && !a.differ && a.set == SET);
	a = ask_two(ONE(1, 2, 3, true), TWO(1, 2, 3, false), NULL);
	assert_true(a.verdict == AGREE_GO_ON && a.members == 3 && a.differ);
}

static void the_copy_that_was_left_behind_is_a_target(void **state)
{
	struct agree_answer a = ask_two(ONE(1, 0, 3, false), TWO(1, 1, 2, false), NULL);

	assert_true(a.verdict == AGREE_GO_ON && a.members == 2 && a.targets == 1 && !a.differ);
	/* It alone answers. */
	a = ask_two(ONE(1, 0, 3, false), silent, NULL);
	assert_true(a.verdict == AGREE_WAIT && !a.of_current);
	assert_true(a.nr_count == 1 && a.nr_needed == 2);
	/* The other has lost its memory. */
	a = ask_two(ONE(1, 0, 3, false), blank, NULL);
	assert_true(a.verdict == AGREE_LOST && a.nr_count == 1 && a.nr_needed == 2);
	/* A later term, if a lower change. */
	a = ask_two(ONE(2, 0, 1, false), TWO(1, 8, 2, false), NULL);
	assert_true(a.verdict == AGREE_GO_ON && a.members == 1 && a.targets == 2);
}

static void a_state_knows_the_members(void **state)
{
	struct agree_known known = {SET, 9, 4, 3, {1, 1}, {0}};
	struct agree_copy other = blank, ahead = TWO(9, 4, 3, false);
	struct agree_answer a = ask_two(ONE(9, 4, 3, false), silent, &known);

	assert_true(a.verdict == AGREE_GO_ON && a.members == 1 && a.targets == 0);
	assert_true(a.term == 9 && a.change == 5 && a.set == SET);
	a = ask_two(ONE(9, 4, 3, true), TWO(9, 4, 3, true), &known);
	assert_true(a.members == 3 && a.differ);
	/* One that was told nothing yet. */
	a = ask_two(ONE(9, 4, 3, false), blank, &known);
	assert_int_equal(a.members, 3);
	/* One that has lost its memory. */
	other.epoch = 2;
	a = ask_two(ONE(9, 4, 3, false), other, &known);
	assert_true(a.verdict == AGREE_GO_ON && a.members == 1 && a.targets == 2);
	other.said.foreign = true;
	a = ask_two(ONE(9, 4, 3, false), other, &known);
	assert_true(a.verdict == AGREE_GO_ON && a.members == 1 && a.targets == 0);
	known.members = 2;
	known.change = 5; /* which no donor was told yet */
	a = ask_two(ONE(9, 4, 3, false), other, &known);
	assert_true(a.verdict == AGREE_LOST && a.of_current && a.nr_count == 0);
	a = ask_two(ONE(9, 4, 3, false), silent, &known);
	assert_true(a.verdict == AGREE_WAIT && a.of_current);
	ahead.said.claimed = 10;
	a = ask_two(silent, ahead, &known);
	assert_true(a.verdict == AGREE_STALE && a.about == 1);

	/* A state that was put back: one of its members may have been left behind since. */
	known = (struct agree_known){SET, 9, 4, 3, {1, 1}, {0}};
	a = ask_two(ONE(9, 4, 3, false), TWO(9, 5, 2, false), &known);
	assert_true(a.verdict == AGREE_STALE && a.about == 1);
	a = ask_two(ONE(9, 4, 1, false), TWO(9, 3, 3, false), &known);
	assert_true(a.verdict == AGREE_STALE && a.about == 0);
}

static void copies_of_other_sets_and_in_another_order_are_refused(void **state)
{
	struct agree_copy other = TWO(1, 0, 3, true);
	struct agree_answer a = ask_two(TWO(1, 0, 3, true), ONE(1, 0, 3, true), NULL);

	assert_true(a.verdict == AGREE_NOT_ALIKE && a.about == 0);
	other.said.of.set = SET + 1;
	a = ask_two(ONE(1, 0, 3, true), other, NULL);
	assert_int_equal(a.verdict, AGREE_NOT_ALIKE);
	other = copy_of(1, 2, 2, 1, 0, 3, true);
	a = ask_two(ONE(1, 0, 3, true), other, NULL);
	assert_int_equal(a.verdict, AGREE_NOT_ALIKE);
	other = copy_of(1, 3, 1, 1, 0, 3, true);
	a = ask_two(ONE(1, 0, 3, true), other, NULL);
	assert_int_equal(a.verdict, AGREE_NOT_ALIKE);
}

/* What the copy has noted of copy 3 of 3: how often that got another region. */
static struct agree_copy third_is(struct agree_copy copy, uint32_t number)
{
	copy.said.regions = weft_copies_regions_pack(3, (uint32_t[WEFT_COPIES_MAX]){0, 0, number});
	return copy;
}

static void a_region_that_was_replaced_is_no_copy(void **state)
{
	/* Copy 3 is another region since term 2; the one before was told a goodbye. */
	struct agree_copy copies[] = {third_is(copy_of(0, 3, 2, 2, 2, 7, true), 1),
		third_is(copy_of(1, 3, 2, 2, 2, 7, true), 1),
		copy_of(2, 3, 2, 1, 4, 7, true)};
	struct agree_answer a;

	agree(copies, 3, 2, NULL, &a);
	assert_true(a.verdict == AGREE_GO_ON && a.members == 3 && a.targets == 4);
	assert_true(a.replaced == 4 && a.differ && a.regions[2] == 1 && !a.regions[0]);
	/* It is no answer either: the one that has its place may know more. */
	copies[1] = silent;
	agree(copies, 3, 2, NULL, &a);
	assert_true(a.verdict == AGREE_WAIT && !a.of_current);
	assert_true(a.nr_count == 1 && a.nr_needed == 2);
	/* The one that came is a copy, however old its notes are. */
	copies[1] = third_is(copy_of(1, 3, 2, 2, 2, 7, true), 1);
	copies[2] = third_is(copies[2], 1);
	agree(copies, 3, 2, NULL, &a);
	assert_true(a.verdict == AGREE_GO_ON && a.members == 7 && !a.replaced);
	assert_int_equal(a.regions[2], 1);
}

static void a_copy_that_was_away_while_another_was_replaced_is_an_answer(void **state)
{
	/* Copy 2 was left behind in term 1; then copy 3 got another region, in term 2. */
	struct agree_copy copies[] = {third_is(copy_of(0, 3, 1, 2, 2, 5, true), 1),
		copy_of(1, 3, 1, 1, 4, 7, false), third_is(copy_of(2, 3, 1, 2, 2, 5, true), 1)};
	struct agree_answer a;

	agree(copies, 3, 1, NULL, &a);
	assert_true(a.verdict == AGREE_GO_ON && a.members == 5 && a.targets == 2);
	assert_true(!a.replaced && !a.differ && a.regions[2] == 1 && !a.regions[1]);
}

/* It was taken in as another region, and is behind since; each session is too short to mend it. */
static void a_copy_that_stays_away_is_an_answer_after_any_number_of_terms(void **state)
{
	const uint64_t regions = weft_copies_regions_pack(2, (uint32_t[WEFT_COPIES_MAX]){0, 1});
	struct agree_copy copies[] = {copy_of(0, 2, 1, 5, 2, 1, true),
		copy_of(1, 2, 1, 5, 1, 3, false)};
	struct agree_answer a;

	copies[0].said.regions = copies[1].said.regions = regions;
	for (uint64_t term = 6; term < 1000; term++) {
		agree(copies, 2, 1, NULL, &a);
		assert_true(a.verdict == AGREE_GO_ON && a.members == 1 && a.targets == 2);
		copies[0].said.claimed = copies[1].said.claimed = copies[0].said.term = term;
		copies[0].said.regions = weft_copies_regions_pack(2, a.regions);
	}
}

static void regions_are_counted_for_each_copy_of_a_set_of_any_size(void **state)
{
	for (uint8_t count = 2; count <= WEFT_COPIES_MAX; count++) {
		const uint32_t max = weft_copies_regions_max(count);
		uint32_t regions[WEFT_COPIES_MAX] = {0};

		for (unsigned i = 0; i < count; i++)
			regions[i] = i % 2 ? i : max - i;
		const uint64_t packed = weft_copies_regions_pack(count, regions);
		assert_true(weft_copies_regions_valid(count, packed));
		for (unsigned i = 0; i < WEFT_COPIES_MAX; i++)
			assert_int_equal(weft_copies_region(count, packed, i), regions[i]);
	}
	assert_int_equal(weft_copies_regions_max(2), UINT32_MAX);
	assert_int_equal(weft_copies_regions_max(3), (1 << 21) - 1);
	assert_int_equal(weft_copies_regions_max(16), 15);
	assert_false(weft_copies_regions_valid(3, UINT64_C(1) << 63));
}

static void the_next_term_is_higher_than_all(void **state)
{
	struct agree_copy copies[] = {blank, ONE(1, 0, 3, false), silent};
	char text[AGREE_GENERATION_MAX];

	assert_int_equal(agree_next_term(copies, 1), 1);
	assert_int_equal(agree_next_term(copies, 3), 10);
	assert_string_equal(agree_generation(&copies[0].said, text), "none");
	assert_string_equal(agree_generation(&copies[1].said, text), "1.0");
}

/* ---- all that may happen ---- */

enum { MAX = 3 };

struct world {
	struct weft_copies notes[MAX];
	/* Of one block: the number of the write that it has. */
	uint8_t value[MAX];
	bool lost[MAX]; /* it has lost its memory since the state was written */
	/* Another region: that which copy aside_of - 1 was before, or may be. */
	struct weft_copies aside;
	uint8_t aside_value, aside_of;
	bool aside_known; /* the state means this one */
	uint8_t answered; /* the highest number that was answered, or read */
	uint8_t nr_losses, nr_swaps;
	bool has_state;
	struct agree_known known;
};

static struct {
	unsigned count, min, max_losses, max_swaps;
	unsigned long nr_go_on, nr_make, nr_refused;
} run;

/* Worlds that were seen: those of a round, and those that came of them. */
static struct worlds {
	struct world *list;
	size_t nr, room;
	size_t *slots;
	size_t nr_slots;
} seen;

static void rehash(void)
{
	seen.nr_slots = seen.nr_slots ? 2 * seen.nr_slots : 1 << 12;
	free(seen.slots);
	seen.slots = calloc(seen.nr_slots, sizeof(*seen.slots));
	assert_non_null(seen.slots);
	for (size_t i = 0; i < seen.nr; i++) {
		size_t at = XXH3_64bits(&seen.list[i], sizeof(seen.list[i]));

		while (seen.slots[at &= seen.nr_slots - 1])
			at++;
		seen.slots[at] = i + 1;
	}
}

/* How many different numbers below this there are; 0 is always one. */
static uint8_t rank_of(uint64_t number, const uint64_t *all, size_t nr)
{
	uint8_t rank = number > 0;

	for (size_t i = 0; i < nr; i++) {
		bool counts = all[i] > 0 && all[i] < number;

		for (size_t j = 0; j < i; j++)
			counts &= all[j] != all[i];
		rank = (uint8_t)(rank + counts);
	}
	return rank;
}

/* All regions there are: the copies, then the one aside. */
static struct weft_copies *notes_of(struct world *w, unsigned i)
{
	return i < MAX ? &w->notes[i] : &w->aside;
}

static uint8_t *value_of(struct world *w, unsigned i)
{
	return i < MAX ? &w->value[i] : &w->aside_value;
}

static void normalize_regions(struct world *w)
{
	enum { ALL = MAX + 1 };
	uint32_t regions[ALL][WEFT_COPIES_MAX] = {0};

	for (unsigned c = 0; c < run.count; c++) {
		uint64_t numbers[ALL + 1] = {w->known.regions[c]};

		for (unsigned i = 0; i < ALL; i++)
			numbers[1 + i] = weft_copies_region((uint8_t)run.count,
				notes_of(w, i)->regions, c);
		w->known.regions[c] = rank_of(w->known.regions[c], numbers, ALL + 1);
		for (unsigned i = 0; i < ALL; i++)
			regions[i][c] = rank_of(numbers[1 + i], numbers, ALL + 1);
	}
	for (unsigned i = 0; i < ALL; i++)
		notes_of(w, i)->regions =
			weft_copies_regions_pack((uint8_t)run.count, regions[i]);
}

/* Worlds that differ in nothing but how far something was counted become the same. */
static void normalize(struct world *w)
{
	enum { ALL = MAX + 1, TERMS = 2 * ALL + 1 };
	uint64_t values[ALL + 1] = {w->answered}, terms[TERMS];

	if (!w->has_state)
		memset(&w->known, 0, sizeof(w->known));
	terms[2 * ALL] = w->known.term;
	for (unsigned i = 0; i < ALL; i++) {
		const struct weft_copies *notes = notes_of(w, i);

		values[1 + i] = *value_of(w, i);
		terms[2 * i] = notes->claimed;
		terms[2 * i + 1] = notes->term;
	}
	w->answered = rank_of(w->answered, values, ALL + 1);
	w->known.term = rank_of(w->known.term, terms, TERMS);
	for (unsigned i = 0; i < ALL; i++) {
		struct weft_copies *notes = notes_of(w, i);

		*value_of(w, i) = rank_of(*value_of(w, i), values, ALL + 1);
		notes->claimed = rank_of(notes->claimed, terms, TERMS);
		notes->term = rank_of(notes->term, terms, TERMS);
		if (!w->has_state)
			memset(notes->claimer, 0, sizeof(notes->claimer));
	}
	normalize_regions(w);
	for (unsigned i = 0; i < MAX; i++)
		w->lost[i] &= w->has_state;
	w->aside_known &= w->has_state;
}

static void add(const struct world *world)
{
	struct world w = *world;

	normalize(&w);
	if (2 * seen.nr >= seen.nr_slots)
		rehash();
	size_t at = XXH3_64bits(&w, sizeof(w));
	for (; seen.slots[at &= seen.nr_slots - 1]; at++)
		if (memcmp(&seen.list[seen.slots[at] - 1], &w, sizeof(w)) == 0)
			return;
	if (seen.nr == seen.room) {
		seen.room = seen.room ? 2 * seen.room : 1 << 10;
		seen.list = realloc(seen.list, seen.room * sizeof(*seen.list));
		assert_non_null(seen.list);
	}
	seen.list[seen.nr++] = w;
	seen.slots[at] = seen.nr;
}

/* A borrower is the one of the state, or somebody new. */
static const struct weft_attachment me = {.id_hash = {1, 1, 1, 1, 1, 1, 1, 1}};

static void tell(struct world *w, unsigned i, const struct weft_copies_asked *asked)
{
	struct weft_region region = {.copies = w->notes[i]};

	assert_int_equal(change(&region, asked, &me), 0);
	w->notes[i] = region.copies;
}

static struct weft_copy_of of(unsigned i)
{
	return (struct weft_copy_of){SET, (uint8_t)(i + 1), (uint8_t)run.count, (uint8_t)run.min};
}

static struct weft_copies_asked asked_of(unsigned i, enum weft_copies_action action,
	const struct agree_known *known)
{
	return (struct weft_copies_asked){.action = action,
		.of = of(i),
		.term = known->term,
		.change = known->change,
		.members = known->members,
		.regions = action == WEFT_COPIES_NOTE
			? weft_copies_regions_pack((uint8_t)run.count, known->regions)
			: 0};
}

static struct weft_generation no_entries[WEFT_NR_GENERATIONS];

static struct agree_copy answer_of_copy(const struct world *w, unsigned i)
{
	struct weft_region region = {.copies = w->notes[i], .generations = no_entries};
	struct agree_copy copy = {.answers = true,
		.epoch = w->lost[i] ? 2 : 1,
		.said = answer_of(&region, &me)};

	/* Somebody has written there: a borrower that made a copy of it, and went. */
	copy.said.used = !copy.said.of.set && w->value[i];
	return copy;
}

/* The next generation, in the state; then the first nr of its members are told. */
static void begin(struct world *w, struct agree_known known, unsigned nr)
{
	for (unsigned i = 0; i < MAX; i++)
		known.epochs[i] = 1;
	memset(w->lost, 0, sizeof(w->lost));
	w->aside_known = false;
	w->has_state = true;
	w->known = known;
	for (unsigned i = 0; i < run.count; i++)
		if ((known.members >> i & 1) && nr-- > 0) {
			const struct weft_copies_asked asked =
				asked_of(i, WEFT_COPIES_NOTE, &known);

			tell(w, i, &asked);
			assert_true(w->notes[i].term == known.term &&
				w->notes[i].change == known.change);
			if (nr == 0)
				return;
		}
}

static unsigned nr_members(uint16_t members)
{
	return (unsigned)__builtin_popcount(members);
}

static uint8_t new_value(const struct world *w)
{
	uint8_t value = w->answered;

	for (unsigned i = 0; i < run.count; i++)
		value = (uint8_t)weft_max(value, w->value[i]);
	return (uint8_t)(weft_max(value, w->aside_value) + 1);
}

/* A write reaches some; the borrower is killed, or all have it and it is answered. */
static void write_to(struct world w, uint16_t members)
{
	const uint8_t value = new_value(&w);

	for (uint16_t landed = 0; landed <= members; landed++) {
		struct world next = w;

		if (landed & ~members)
			continue;
		for (unsigned i = 0; i < run.count; i++)
			if (landed >> i & 1)
				next.value[i] = value;
		add(&next);
		if (landed != members)
			continue;
		next.answered = value;
		add(&next);
	}
}

/* Members leave, or join, and something is written. */
static void change_members(const struct world *w, uint16_t members)
{
	struct agree_known known = w->known;

	known.change++;
	known.members = members;
	for (unsigned nr = 0; nr <= nr_members(members); nr++) {
		struct world next = *w;
		uint16_t all = (uint16_t)(w->known.members | members);

		begin(&next, known, nr);
		add(&next);
		if (nr == nr_members(members)) {
			write_to(next, members);
			continue;
		}
		/* Not answered, wherever it lands. */
		for (unsigned i = 0; i < run.count; i++)
			if (all >> i & 1) {
				struct world torn = next;

				torn.value[i] = new_value(&next);
				add(&torn);
			}
	}
}

/* The members are told that; whoever does it may be killed in between. */
static void tell_members(struct world *w, const struct agree_known *known)
{
	const struct world before = *w;

	for (unsigned nr = 0; nr <= nr_members(known->members); nr++) {
		*w = before;
		begin(w, *known, nr);
		add(w);
	}
}

/*
 * A copy is to join that is another region: a term under which the one before was told nothing,
 * then the number of its regions, then it notes who the members are.
 */
static void take_in(struct world *w, unsigned copy, bool fresh)
{
	struct agree_known known = w->known;

	if (!fresh) {
		known.term++;
		known.change = 1;
		tell_members(w, &known);
	}
	known.change++;
	known.regions[copy]++;
	tell_members(w, &known);
	const struct weft_copies_asked asked = asked_of(copy, WEFT_COPIES_NOTE, &known);
	tell(w, copy, &asked);
	add(w);
}

static void say_goodbye(const struct world *w)
{
	struct world next = *w;

	for (unsigned i = 0; i < run.count; i++)
		if (w->known.members >> i & 1) {
			const struct weft_copies_asked asked =
				asked_of(i, WEFT_COPIES_END, &w->known);

			tell(&next, i, &asked);
			assert_true(next.notes[i].ended);
			add(&next);
		}
	next.has_state = false;
	add(&next);
}

/* The members are told, and the same: whatever the device is used for. */
static void use(struct world w, uint16_t targets, uint16_t others, bool fresh)
{
	const uint16_t members = w.known.members;

	for (unsigned i = 0; i < run.count; i++)
		if (members >> i & 1) {
			/* Nothing that was answered, or shown, is missing. */
			assert_true(w.value[i] >= w.answered);
			assert_int_equal(w.value[i], w.value[__builtin_ctz(members)]);
		}
	w.answered = w.value[__builtin_ctz(members)];
	add(&w);
	write_to(w, members);
	say_goodbye(&w);
	for (unsigned i = 0; i < run.count; i++) {
		const uint16_t bit = (uint16_t)(1 << i);

		if ((members & bit) && nr_members(members) > run.min)
			change_members(&w, members & ~bit);
		if (targets & bit) {
			struct world joined = w;

			if (others & bit)
				take_in(&joined, i, fresh);
			joined.value[i] = w.answered;
			add(&joined);
			change_members(&joined, members | bit);
		}
	}
}

static void go_on_from(const struct world *w, const struct agree_answer *a,
	const struct agree_known *known, uint16_t others, bool fresh)
{
	for (unsigned nr = 0; nr <= nr_members(known->members); nr++) {
		struct world next = *w;

		begin(&next, *known, nr);
		add(&next);
		if (nr < nr_members(known->members))
			continue;
		for (unsigned i = 0; a->differ && i < run.count; i++)
			if (known->members >> i & 1) {
				next.value[i] = next.value[a->source];
				add(&next);
			}
		use(next, a->targets, others, fresh);
	}
}

static bool are_blank(const struct world *w)
{
	for (unsigned i = 0; i < run.count; i++)
		if (w->notes[i].set)
			return false;
	return true;
}

/* Some donors have noted that a set is being made, and others nothing. */
static bool is_half_made(const struct world *w)
{
	unsigned nr_making = 0;

	for (unsigned i = 0; i < run.count; i++) {
		if (w->notes[i].term)
			return false;
		nr_making += w->notes[i].set != 0;
	}
	return nr_making > 0 && nr_making < run.count;
}

/* A borrower comes, and these donors answer. */
static void come(const struct world *world, uint16_t answering)
{
	const bool knows = world->has_state;
	struct agree_copy copies[MAX] = {0};
	struct world w = *world;
	struct agree_known known = {.set = SET};
	struct agree_answer a;
	uint16_t others = 0;

	for (unsigned i = 0; i < run.count; i++)
		if (answering >> i & 1)
			copies[i] = answer_of_copy(&w, i);
	known.term = agree_next_term(copies, run.count);
	for (unsigned i = 0; i < run.count && !knows; i++)
		if (answering >> i & 1) {
			const struct weft_copies_asked asked =
				asked_of(i, WEFT_COPIES_CLAIM, &known);

			tell(&w, i, &asked);
			add(&w);
			copies[i] = answer_of_copy(&w, i);
			assert_true(copies[i].said.mine);
		}
	agree(copies, run.count, run.min, knows ? &w.known : NULL, &a);
	for (unsigned i = 0; i < run.count; i++)
		if (!copies[i].said.of.set ||
			agree_region(&copies[i].said, i) != a.regions[i])
			others |= (uint16_t)(1U << i);
	/* A set of which no donor has lost anything can be attached when all answer. */
	if (answering == weft_copies_all((uint8_t)run.count) && world->nr_losses == 0 &&
		world->nr_swaps == 0)
		assert_true(a.verdict == AGREE_GO_ON || a.verdict == AGREE_MAKE ||
			is_half_made(&w));
	switch (a.verdict) {
	case AGREE_GO_ON:
		run.nr_go_on++;
		known.members = a.members;
		memcpy(known.regions, a.regions, sizeof(known.regions));
		if (knows) {
			assert_true(a.set == SET && a.term == w.known.term);
			known.term = a.term;
			known.change = a.change;
		}
		go_on_from(&w, &a, &known, others, !knows);
		break;
	case AGREE_MAKE:
		run.nr_make++;
		/* All have lost their memory, or none was ever used: nobody can tell. */
		if (are_blank(&w))
			w.answered = 0;
		assert_int_equal(answering, weft_copies_all((uint8_t)run.count));
		/* It is of another set now. */
		if (w.aside.set)
			w.aside_of = UINT8_MAX;
		for (unsigned i = 0; i < run.count; i++) {
			const struct weft_copies_asked asked =
				asked_of(i, WEFT_COPIES_MAKE, &known);

			tell(&w, i, &asked);
			add(&w);
		}
		known.members = a.members;
		go_on_from(&w, &a, &known, 0, true);
		break;
	default:
		run.nr_refused++;
	}
}

static void lose_memory(const struct world *w, unsigned i)
{
	struct world next = *w;

	if (w->nr_losses == run.max_losses)
		return;
	memset(&next.notes[i], 0, sizeof(next.notes[i]));
	next.value[i] = 0;
	next.lost[i] = true;
	next.nr_losses++;
	add(&next);
}

/* Another region is named as the copy from now on: the one that it was before, or a blank one. */
static void swap(const struct world *w, unsigned i)
{
	struct world next = *w;

	if (w->nr_swaps == run.max_swaps || (w->aside_of && w->aside_of != i + 1))
		return;
	next.notes[i] = w->aside;
	next.value[i] = w->aside_value;
	next.lost[i] = !w->aside_known;
	next.aside = w->notes[i];
	next.aside_value = w->value[i];
	next.aside_known = !w->lost[i];
	next.aside_of = (uint8_t)(i + 1);
	next.nr_swaps++;
	add(&next);
}

static void explore(unsigned count, unsigned min, unsigned rounds, unsigned max_losses,
	unsigned max_swaps)
{
	struct world first;
	size_t from = 0;

	memset(&run, 0, sizeof(run));
	run.count = count;
	run.min = min;
	run.max_losses = max_losses;
	run.max_swaps = max_swaps;
	seen.nr = seen.nr_slots = 0;
	memset(&first, 0, sizeof(first));
	add(&first);
	for (unsigned round = 0; round < rounds; round++) {
		const size_t to = seen.nr;

		for (; from < to; from++) {
			struct world w = seen.list[from];

			for (uint16_t s = 1; s <= weft_copies_all((uint8_t)count); s++)
				come(&w, s);
			for (unsigned i = 0; i < count; i++) {
				lose_memory(&w, i);
				swap(&w, i);
			}
			if (!w.has_state)
				continue;
			w.has_state = false;
			add(&w);
		}
	}
	print_message("%u copies, min %u: %zu worlds, gone on %lu times, made %lu, refused %lu\n",
		count, min, seen.nr, run.nr_go_on, run.nr_make, run.nr_refused);
	assert_true(run.nr_go_on > 0 && run.nr_make > 0 && run.nr_refused > 0);
}

static void whatever_happens_nothing_that_was_answered_is_missing(void **state)
{
	explore(2, 1, 5, 2, 0);
	explore(2, 2, 5, 2, 0);
	explore(3, 2, 3, 1, 0);
	explore(3, 1, 3, 1, 0);
	explore(3, 3, 3, 1, 0);
}

static void nor_if_another_region_is_named_and_then_the_one_before(void **state)
{
	explore(2, 1, 6, 0, 2);
	explore(3, 2, 3, 0, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set_is_made_of_regions_that_were_never_written),
		cmocka_unit_test(a_goodbye_at_all_members_makes_them_the_same),
		cmocka_unit_test(the_copy_that_was_left_behind_is_a_target),
		cmocka_unit_test(a_state_knows_the_members),
		cmocka_unit_test(copies_of_other_sets_and_in_another_order_are_refused),
		cmocka_unit_test(a_region_that_was_replaced_is_no_copy),
		cmocka_unit_test(a_copy_that_was_away_while_another_was_replaced_is_an_answer),
		cmocka_unit_test(regions_are_counted_for_each_copy_of_a_set_of_any_size),
		cmocka_unit_test(a_copy_that_stays_away_is_an_answer_after_any_number_of_terms),
		cmocka_unit_test(the_next_term_is_higher_than_all),
		cmocka_unit_test(whatever_happens_nothing_that_was_answered_is_missing),
		cmocka_unit_test(nor_if_another_region_is_named_and_then_the_one_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
