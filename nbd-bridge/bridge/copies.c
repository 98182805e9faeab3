/* SPDX-License-Identifier: MIT */
/*
 * The copies of a bridge's device: how they are begun and ended, and what others see of them.  The
 * control thread, unless a comment says otherwise.
 */
#include "nbd-bridge/bridge/copies.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"

enum {
	MEMORY_BYTES = COPIES_ANSWERS + BRIDGE_MAX_DONORS * WEFT_COPIES_BYTES,
	STUCK_MS = 30000, /* for beginning without any progress */
};

/* ---- making and freeing ---- */

int copies_new(struct bridge *bridge, struct bridge_copies **ret)
{
	const struct bridge_attachment *attachment = &bridge->attachment;
	const struct bridge_copies_config *config = &attachment->config.copies;
	struct bridge_copies *copies = calloc(1, sizeof(*copies));

	assert(config->min >= 1 && config->min <= config->nr && config->settle);
	if (!copies)
		return -ENOMEM;
	copies->bridge = bridge;
	copies->tend = copies_tend;
	copies->nr = config->nr;
	copies->min = config->min;
	copies->nr_stripes = attachment->map.nr;
	copies->nr_donors = attachment->nr_peers;
	copies->lost_ns = (config->lost_ms ? config->lost_ms : COPIES_LOST_MS) * UINT64_C(1000000);
	/* A lost one is left behind before requests that wait for it fail. */
	if (attachment->config.dead_timeout_ms)
		copies->lost_ns = weft_min(copies->lost_ns,
			attachment->config.dead_timeout_ms * UINT64_C(1000000) / 2);
	copies->spare_ns = (config->spare_ms ? config->spare_ms : COPIES_SPARE_MS) *
		UINT64_C(1000000);
	copies->nr_spares = config->nr_spares;
	memcpy(copies->spares, config->spares, sizeof(copies->spares));
	copies->whole_ns = (config->whole_ms ? config->whole_ms : COPIES_WHOLE_MS) *
		UINT64_C(1000000);
	pthread_mutex_init(&copies->lock, NULL);
	weft_cond_init(&copies->changed);
	*ret = copies;
	return 0;
}

void copies_free(struct bridge_copies *copies)
{
	if (!copies)
		return;
	assert(!copies->running && !copies->mem);
	if (copies->memory)
		munmap(copies->memory, MEMORY_BYTES);
	lanes_copies_fini(&copies->shared);
	pthread_cond_destroy(&copies->changed);
	pthread_mutex_destroy(&copies->lock);
	free(copies);
}

/* ---- beginning ---- */

struct registering {
	struct bridge_copies *copies;
	struct weft_error *err;
	int r;
};

static void register_memory(struct bridge_lane *lane, void *ctx)
{
	struct registering *reg = ctx;

	reg->r = bridge_lane_register(lane, reg->copies->memory, MEMORY_BYTES, &reg->copies->mem,
		reg->err);
}

static int take_memory(struct bridge_copies *copies, struct weft_error *err)
{
	struct registering reg = {.copies = copies, .err = err};
	void *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return weft_error_set(err, ENOMEM, "cannot look after the copies: out of memory");
	copies->memory = memory;
	bridge_lane_run(copies->bridge->lanes.lane[0], register_memory, &reg);
	return reg.r;
}

static void start_lane(struct bridge_lane *lane, void *ctx)
{
	lane_copies_start(lane, ctx);
}

/* Who is there of the members; the others are behind by all that they have. */
static int choose_live(struct bridge_copies *copies, struct weft_error *err)
{
	copies->live = 0;
	for (unsigned i = 0; i < copies->nr_donors; i++) {
		const unsigned stripe = i / copies->nr;
		struct copies_member *member = &copies->members[i];

		/* Under a term that is new nobody was told anything yet. */
		member->told_term = copies->known[stripe].term - !copies->known[stripe].change;
		if (copies->known[stripe].members >> i % copies->nr & 1 &&
			bridge_copies_granted(copies->bridge, i, &member->why)) {
			copies->live |= 1U << i;
			continue;
		}
		member->state = BRIDGE_COPY_LOST;
		member->spare_due_ns = weft_now_ns() + copies->spare_ns;
		member->compare = true;
		ranges_set(&copies->shared.behind[i], 0, copies->shared.part_bytes);
	}
	for (unsigned i = 0; i < copies->nr_stripes; i++) {
		const uint32_t live = copies->live & copies_of_stripe(copies, i);

		if ((unsigned)__builtin_popcount(live) < copies->min)
			return weft_error_set(err, ENODATA,
				"%d of the copies that are current are there, and there have to be "
				"%u (see --min-copies)",
				__builtin_popcount(live), copies->min);
	}
	return 0;
}

/* 0, or why there is no use in waiting for copies to become the same. */
static int check_beginning(struct bridge_copies *copies, struct weft_error *err)
{
	if (attachment_stale_why(&copies->bridge->attachment, err))
		return -err->code;
	if (copies_is_given_up(copies))
		return weft_error_set(err, ECANCELED, "given up before it had connected");
	return 0;
}

/* Until everything is noted, and current copies are the same. */
static int become_whole(struct bridge_copies *copies, struct weft_error *err)
{
	uint64_t end_ns = weft_now_ns() + STUCK_MS * UINT64_C(1000000);

	for (;;) {
		bool torn = false;

		copies_tend(copies);
		if (check_beginning(copies, err) < 0)
			return -err->code;
		if (copies_mend(copies))
			end_ns = weft_now_ns() + STUCK_MS * UINT64_C(1000000);
		for (unsigned i = 0; i < copies->nr_stripes; i++)
			torn |= !ranges_empty(&copies->shared.torn[i]);
		if (!torn && !copies_any_due(copies))
			return 0;
		if (weft_now_ns() > end_ns)
			return weft_error_set(err, ETIMEDOUT,
				"a copy that is current does not answer, and without that one "
				"there are fewer than %u (see --min-copies)", copies->min);
		copies_wait(copies, COPIES_SOON_MS);
	}
}

/*
 * A set is made of what one of the regions holds.  The others of the first members get that before
 * anything is noted: whoever is killed meanwhile has made no set.
 */
static int make_from_source(struct bridge_copies *copies, struct weft_error *err)
{
	bool any = false;

	for (unsigned i = 0; i < copies->nr_stripes; i++) {
		const struct bridge_copies_known *known = &copies->known[i];

		if (!(known->members & ~known->source) || !known->source)
			continue;
		atomic_store(&copies->shared.forward[i], (uint32_t)known->source << i * copies->nr);
		ranges_set(&copies->shared.torn[i], 0, copies->shared.part_bytes);
		any = true;
	}
	copies->making = true;
	for (bool torn = any; torn;) {
		torn = false;
		copies_tend(copies);
		if (check_beginning(copies, err) < 0)
			return -err->code;
		copies_mend(copies);
		for (unsigned i = 0; i < copies->nr_stripes; i++)
			torn |= !ranges_empty(&copies->shared.torn[i]);
		if (copies->failed)
			return weft_error_set(err, ENOTCONN,
				"a copy was lost before it had everything");
		if (torn)
			copies_wait(copies, COPIES_SOON_MS);
	}
	copies->making = false;
	return 0;
}

static bool is_as_it_should_be(const struct bridge_copies *copies)
{
	return copies->live == (1U << copies->nr_donors) - 1 && !copies_any_due(copies);
}

static void *keeper_main(void *ctx)
{
	struct bridge_copies *copies = ctx;

	while (!copies_is_ending(copies)) {
		copies_tend(copies);
		if (copies_mend(copies) || copies_repair(copies) || copies_sync(copies))
			continue;
		/* A donor that just falls silent tells nobody. */
		copies_wait(copies, is_as_it_should_be(copies)
			? (unsigned)weft_min(copies->lost_ns / 4000000, 1000)
			: COPIES_SOON_MS);
	}
	return NULL;
}

int copies_begin(struct bridge *bridge, struct weft_error *err)
{
	const struct bridge_copies_config *config = &bridge->attachment.config.copies;
	struct bridge_copies *copies = bridge->copies;
	int r;

	if (lanes_copies_init(&copies->shared, &bridge->lanes, copies_kick, copies) < 0)
		return weft_error_set(err, ENOMEM, "cannot look after the copies: out of memory");
	r = take_memory(copies, err);
	if (r == 0)
		r = config->settle(config->ctx, bridge, copies->known, err);
	if (r == 0)
		r = choose_live(copies, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < bridge->lanes.nr; i++)
		bridge_lane_run(bridge->lanes.lane[i], start_lane, &copies->shared);
	copies_order(copies, NULL);
	r = make_from_source(copies, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < copies->nr_stripes; i++) {
		/* What was under way when the one before ended may be at some copies only. */
		if (!copies->known[i].same)
			ranges_set(&copies->shared.torn[i], 0, copies->shared.part_bytes);
		copies_change(copies, i);
	}
	copies_order(copies, NULL);
	r = become_whole(copies, err);
	if (r < 0)
		return r;
	copies->started = true;
	r = weft_thread_create(&copies->thread, NULL, keeper_main, copies);
	if (r < 0)
		return weft_error_set(err, -r, "cannot look after the copies: %s", strerror(-r));
	copies->running = true;
	return 0;
}

/* ---- the end ---- */

static void deregister_memory(struct bridge_lane *lane, void *ctx)
{
	struct bridge_copies *copies = ctx;

	bridge_lane_deregister(lane, copies->mem);
	copies->mem = NULL;
}

/* The members note that nothing is under way any more; one that does not is compared next time. */
static void note_end(struct bridge_copies *copies)
{
	struct weft_copies_answer answer;

	copies_tend(copies);
	copies_mend(copies);
	for (unsigned i = 0; i < copies->nr_donors; i++) {
		const unsigned stripe = i / copies->nr;
		struct weft_copies_asked ask = copies_question(copies, i, WEFT_COPIES_END);

		if (copies->live >> i & 1 && !copies_any_due(copies) && !copies->failed &&
			ranges_empty(&copies->shared.torn[stripe]))
			copies_ask(copies, i, &ask, &answer);
	}
}

void copies_end(struct bridge_copies *copies, bool clean)
{
	struct bridge *bridge = copies->bridge;

	if (copies->running) {
		pthread_mutex_lock(&copies->lock);
		copies->ending = true;
		pthread_cond_broadcast(&copies->changed);
		pthread_mutex_unlock(&copies->lock);
		pthread_join(copies->thread, NULL);
		copies->running = false;
	}
	if (clean && copies->started && !atomic_load(&bridge->attachment.stale))
		note_end(copies);
	copies->started = false;
	if (copies->mem)
		bridge_lane_run(bridge->lanes.lane[0], deregister_memory, copies);
}

/* ---- for settle() ---- */

struct granted {
	unsigned donor;
	bool granted;
	struct weft_error why;
};

static void look_at_link(struct bridge_lane *lane, void *ctx)
{
	struct granted *granted = ctx;
	const struct bridge_link *link = lane_link(lane, granted->donor);

	granted->granted = link->state == LINK_READY;
	granted->why = link->why;
}

bool bridge_copies_granted(struct bridge *bridge, unsigned donor, struct weft_error *ret_why)
{
	struct granted granted = {.donor = donor};

	bridge_lane_run(bridge->lanes.lane[0], look_at_link, &granted);
	if (ret_why)
		*ret_why = granted.granted ? (struct weft_error){0} : granted.why;
	return granted.granted && !atomic_load(&bridge->attachment.peers[donor].lost_contents);
}

int bridge_copies_ask(struct bridge *bridge, unsigned donor, const struct weft_copies_asked *asked,
	struct weft_copies_answer *ret, struct weft_error *err)
{
	int r = copies_ask(bridge->copies, donor, asked, ret);

	return r < 0 ? weft_error_set(err, -r, "the donor does not say what it knows of copies: %s",
			       strerror(-r))
		     : 0;
}

/* ---- what others see: any thread ---- */

bool bridge_has_copies(const struct bridge *bridge)
{
	return bridge->copies;
}

void bridge_copies_look(struct bridge *bridge, unsigned donor, struct bridge_copy *ret)
{
	struct bridge_copies *copies = bridge->copies;
	const struct ranges *behind = &copies->shared.behind[donor];
	const struct copies_member *member = &copies->members[donor];

	pthread_mutex_lock(&copies->lock);
	*ret = (struct bridge_copy){
		.state = member->state,
		.behind_bytes = weft_min(atomic_load(&behind->nr_set) << COPIES_CHUNK_SHIFT,
			copies->shared.part_bytes),
		.since = member->since,
		.silent_ns = member->silent_ns,
		.eta_s = member->state == BRIDGE_COPY_SYNCING ? member->eta_s : 0,
		.why = member->why,
	};
	pthread_mutex_unlock(&copies->lock);
	if (ret->state == BRIDGE_COPY_CURRENT)
		ret->behind_bytes = 0;
}

struct bridge_copies_known bridge_copies_now(struct bridge *bridge, unsigned stripe)
{
	struct bridge_copies *copies = bridge->copies;

	pthread_mutex_lock(&copies->lock);
	struct bridge_copies_known known = copies->known[stripe];
	pthread_mutex_unlock(&copies->lock);
	return known;
}

static json_t *member_json(struct bridge *bridge, unsigned donor)
{
	static const char *const states[] = {
		[BRIDGE_COPY_CURRENT] = "current",
		[BRIDGE_COPY_SYNCING] = "syncing",
		[BRIDGE_COPY_LOST] = "lost",
		[BRIDGE_COPY_OTHERS] = "others",
	};
	const struct bridge_copies_known known =
		bridge_copies_now(bridge, donor / bridge->copies->nr);
	const struct bridge_copies *copies = bridge->copies;
	struct bridge_copy copy;
	char generation[40];

	bridge_copies_look(bridge, donor, &copy);
	snprintf(generation, sizeof(generation), "%" PRIu64 ".%" PRIu32, known.term, known.change);
	return json_pack("{s:i, s:i, s:s?, s:s, s:s, s:I, s:o, s:f, s:o, s:o}", "stripe",
		(int)(donor / copies->nr), "copy", (int)(donor % copies->nr), "donor",
		peer_uri(&bridge->attachment.peers[donor]), "state", states[copy.state],
		"generation", generation,
		"behind_bytes",
		(json_int_t)copy.behind_bytes, "since",
		copy.since ? json_integer(copy.since) : json_null(), "silent_s",
		(double)copy.silent_ns / 1e9, "eta_s",
		copy.eta_s ? json_integer((json_int_t)copy.eta_s) : json_null(), "why",
		copy.why.code ? json_string(copy.why.message) : json_null());
}

json_t *bridge_copies_status(struct bridge *bridge)
{
	const struct bridge_copies *copies = bridge->copies;
	unsigned fewest = copies->nr, nr_syncing = 0;
	json_t *members = json_array();
	bool few = false;

	for (unsigned i = 0; i < copies->nr_stripes; i++) {
		unsigned nr = 0;

		for (unsigned c = 0; c < copies->nr; c++) {
			unsigned donor = i * copies->nr + c;
			struct bridge_copy copy;

			bridge_copies_look(bridge, donor, &copy);
			nr += copy.state == BRIDGE_COPY_CURRENT &&
				copy.silent_ns < copies->lost_ns;
			nr_syncing += copy.state == BRIDGE_COPY_SYNCING;
			json_array_append_new(members, member_json(bridge, donor));
		}
		fewest = weft_min(fewest, nr);
		few |= nr < copies->min;
	}
	return json_pack("{s:i, s:i, s:i, s:s, s:o}", "copies", (int)copies->nr, "min_copies",
		(int)copies->min, "current", (int)fewest, "state",
		few                            ? "too few"
			: fewest == copies->nr ? "whole"
			: nr_syncing > 0       ? "syncing"
					       : "degraded",
		"members", members);
}
