/* SPDX-License-Identifier: MIT */
#include "tests/support/copies-world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"

enum { WAIT_MS = 60000 };

struct world world;

static void lend(unsigned i)
{
	world.donors[i] = lend_memory(WORLD_REGION, 0, &world.regions[i]);
	world.mems[i].donor = world.donors[i];
}

static int note(void *ctx, unsigned stripe, const struct bridge_copies_known *known)
{
	if (world.at_note)
		world.at_note();
	if (atomic_load(&world.note_fails))
		return -ENOSPC;
	world.state[stripe] = *known;
	atomic_fetch_add(&world.nr_notes, 1);
	return 0;
}

/* What each donor of the stripe says that has granted; the bits of those. */
static uint32_t ask_all(struct bridge *b, unsigned stripe, const struct weft_copies_asked *asked,
	struct weft_copies_answer *answers)
{
	struct weft_copies_asked one = *asked;
	struct weft_error err;
	uint32_t there = 0;

	for (unsigned i = 0; i < world.nr_copies; i++) {
		unsigned donor = stripe * world.nr_copies + i;

		one.of.index = (uint8_t)(i + 1);
		if (!bridge_copies_granted(b, donor, NULL))
			continue;
		if (bridge_copies_ask(b, donor, &one, &answers[i], &err) == 0)
			there |= 1U << i;
	}
	return there;
}

/* As few words as do for a test; main/ has it in full. */
static int settle_one(struct bridge *b, unsigned stripe, struct bridge_copies_known *known,
	struct weft_error *err)
{
	struct weft_copies_asked ask = {.action = WEFT_COPIES_ASK};
	struct weft_copies_answer answers[WORLD_DONORS] = {0};
	const struct weft_copies_answer *top = NULL;
	uint32_t there = ask_all(b, stripe, &ask, answers), blank = 0;
	uint64_t term = 1;

	for (unsigned i = 0; i < world.nr_copies; i++)
		if (there >> i & 1)
			term = weft_max(term, answers[i].claimed + 1);
	ask = (struct weft_copies_asked){.action = WEFT_COPIES_CLAIM, .term = term};
	there = ask_all(b, stripe, &ask, answers);
	for (unsigned i = 0; i < world.nr_copies; i++) {
		const struct weft_copies_answer *answer = &answers[i];

		if (!(there >> i & 1))
			continue;
		blank |= (answer->of.set == 0) << i;
		if (answer->of.set && (!top || answer->term > top->term ||
			(answer->term == top->term && answer->change > top->change)))
			top = answer;
	}
	known->term = term;
	if (!top) {
		if (there != weft_copies_all((uint8_t)world.nr_copies))
			return weft_error_set(err, ENODATA, "not all are there to make a set");
		known->set = 1000 + stripe;
		ask = (struct weft_copies_asked){.action = WEFT_COPIES_MAKE,
			.of = {.set = known->set,
				.count = (uint8_t)world.nr_copies,
				.min = (uint8_t)world.min},
			.term = term};
		ask_all(b, stripe, &ask, answers);
		known->members = (uint16_t)there;
		known->same = true;
		return 0;
	}
	known->set = top->of.set;
	known->members = (uint16_t)(top->members & ~blank);
	for (unsigned i = 0; i < world.nr_copies; i++)
		known->regions[i] = weft_copies_region(top->of.count, top->regions, i);
	known->same = (known->members & ~there) == 0 && !(top->members & blank);
	for (unsigned i = 0; i < world.nr_copies; i++)
		if (known->members >> i & 1)
			known->same &= answers[i].ended;
	return 0;
}

static int settle(void *ctx, struct bridge *b, struct bridge_copies_known *known,
	struct weft_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < world.nr_donors / world.nr_copies && r == 0; i++) {
		known[i] = world.state[i];
		known[i].same = false;
		if (!world.takes_over)
			r = settle_one(b, i, &known[i], err);
		world.was_same = known[i].same;
	}
	return r;
}

void world_begin(unsigned nr_stripes, unsigned nr_copies, unsigned min)
{
	static const char *const labels[WORLD_DONORS] = {"weft://a/r", "weft://b/r", "weft://c/r",
		"weft://d/r"};

	memset(&world, 0, sizeof(world));
	world.nr_donors = nr_stripes * nr_copies;
	world.nr_copies = nr_copies;
	world.min = min;
	assert_true(world.nr_donors <= WORLD_DONORS);
	for (unsigned i = 0; i < world.nr_donors; i++) {
		lend(i);
		world.mems[i].cut = 1;
		world.to[i] = (struct bridge_donor_config){
			.label = labels[i],
			.region = "r",
			.ways = {{.transport = &tp_mem_ops,
				.transport_config = &world.mems[i],
				.host = ""}},
			.nr_ways = 1,
		};
		weft_random(world.to[i].id, sizeof(world.to[i].id));
	}
	world.config = bridge_config_for_tests(NULL);
	world.config.attach.donors = world.to;
	world.config.attach.nr_donors = world.nr_donors;
	world.config.attach.stripe_bytes = nr_stripes > 1 ? WORLD_UNIT : 0;
	world.config.attach.copies = (struct bridge_copies_config){
		.nr = nr_copies,
		.min = min,
		.lost_ms = WORLD_LOST_MS,
		.nr_needed = nr_copies - min + 1,
		.settle = settle,
		.note = note,
	};
}

void world_end(void)
{
	bridge_free(bridge);
	bridge = NULL;
	for (unsigned i = 0; i < world.nr_donors; i++) {
		weft_donor_free(world.donors[i]);
		weft_region_put(world.regions[i]);
	}
	for (unsigned i = 0; i < world.nr_old; i++) {
		weft_donor_free(world.old_donors[i]);
		weft_region_put(world.old_regions[i]);
	}
}

static void next_incarnation(void)
{
	for (unsigned i = 0; i < world.nr_donors; i++)
		world.to[i].generation = ((world.to[i].generation >> 32) + 1) << 32;
}

void world_attach(void)
{
	next_incarnation();
	bridge_begin(&world.config);
}

int world_cannot_attach(struct weft_error *err)
{
	next_incarnation();
	assert_int_equal(bridge_new(&world.config, &bridge, err), 0);
	int r = bridge_start(bridge, err);
	assert_true(r < 0);
	bridge_free(bridge);
	bridge = NULL;
	return r;
}

void world_detach(void)
{
	struct weft_error err = {0};

	if (bridge_stop(bridge, 5000, &err) < 0)
		fail_msg("%s", err.message);
	bridge_free(bridge);
	bridge = NULL;
}

void world_kill_bridge(void)
{
	/* The donors keep what they know of it, as after a cut. */
	for (unsigned i = 0; i < world.nr_donors; i++)
		atomic_fetch_add(&world.mems[i].cut, 1);
	bridge_free(bridge);
	bridge = NULL;
}

void world_cut(unsigned donor)
{
	atomic_store(&world.mems[donor].refuse, ECONNREFUSED);
	atomic_fetch_add(&world.mems[donor].cut, 1);
}

void world_silence(unsigned donor)
{
	atomic_store(&world.mems[donor].silent, true);
	atomic_store(&world.mems[donor].hold, true);
}

void world_heal(unsigned donor)
{
	atomic_store(&world.mems[donor].silent, false);
	atomic_store(&world.mems[donor].hold, false);
	atomic_store(&world.mems[donor].refuse, 0);
}

void world_forget(unsigned donor)
{
	assert_int_equal(atomic_load(&world.mems[donor].refuse), ECONNREFUSED);
	assert_true(world.nr_old < WEFT_ARRAY_LEN(world.old_donors));
	world.old_donors[world.nr_old] = world.donors[donor];
	world.old_regions[world.nr_old++] = world.regions[donor];
	lend(donor);
	/* Nor does whoever has begun to connect to what was there before. */
	atomic_fetch_add(&world.mems[donor].cut, 1);
}

enum bridge_copy_state world_state(unsigned donor)
{
	struct bridge_copy copy;

	bridge_copies_look(bridge, donor, &copy);
	return copy.state;
}

void world_wait_for(unsigned donor, enum bridge_copy_state state)
{
	uint64_t end_ns = weft_now_ns() + WAIT_MS * UINT64_C(1000000);
	struct bridge_copy copy;

	for (;;) {
		bridge_copies_look(bridge, donor, &copy);
		if (copy.state == state)
			return;
		if (weft_now_ns() > end_ns)
			fail_msg("donor %u is not %d but %d: %s", donor, state, copy.state,
				copy.why.code ? copy.why.message : "(no reason)");
		usleep(1000);
	}
}

void world_wait_until_whole(void)
{
	for (unsigned i = 0; i < world.nr_donors; i++)
		world_wait_for(i, BRIDGE_COPY_CURRENT);
}

uint8_t *world_byte(unsigned copy, uint64_t off)
{
	const unsigned stripes = world.nr_donors / world.nr_copies;
	unsigned stripe = 0;

	if (stripes > 1) {
		stripe = (unsigned)(off / WORLD_UNIT % stripes);
		off = off / WORLD_UNIT / stripes * WORLD_UNIT + off % WORLD_UNIT;
	}
	return (uint8_t *)world.regions[stripe * world.nr_copies + copy]->map + off;
}

void world_assert_holds(unsigned copy, uint64_t off, const uint8_t *data, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (*world_byte(copy, off + i) != data[i])
			fail_msg("byte %u of copy %u is wrong", (unsigned)(off + i), copy);
}

void world_assert_same(void)
{
	for (unsigned stripe = 0; stripe < world.nr_donors / world.nr_copies; stripe++) {
		const uint8_t *first = NULL;

		for (unsigned i = 0; i < world.nr_copies; i++) {
			unsigned donor = stripe * world.nr_copies + i;
			const uint8_t *one = world.regions[donor]->map;

			if (bridge && world_state(donor) != BRIDGE_COPY_CURRENT)
				continue;
			for (unsigned at = 0; first && at < WORLD_REGION; at++)
				if (first[at] != one[at])
					fail_msg("copies differ at byte %u of donor %u", at, donor);
			first = one;
		}
	}
}
