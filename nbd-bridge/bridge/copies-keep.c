/* SPDX-License-Identifier: MIT */
/*
 * Who is current: a lost copy is left behind, one that comes back is asked whose it is, and each
 * change is noted, first in the state, then at the members.  The thread that keeps the copies.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"
#include "nbd-bridge/link/agree.h"

/* ---- what there is to see ---- */

static void see_links(struct bridge_lane *lane, void *ctx)
{
	struct copies_seen *seen = ctx;

	for (unsigned i = 0; i < BRIDGE_MAX_DONORS && seen[i].nr_ready != UINT32_MAX; i++) {
		const struct bridge_link *link = lane_link(lane, i);

		seen[i].nr_ready += link->state == LINK_READY;
		seen[i].nr_idle += link->state == LINK_IDLE && !link->conn;
		seen[i].silent_ns = weft_max(seen[i].silent_ns, link_silent_ns(link));
		if (link->state != LINK_READY && link->why.code && !seen[i].why.code)
			seen[i].why = link->why;
	}
}

void copies_see(struct bridge_copies *copies, struct copies_seen *seen)
{
	const struct bridge_lanes *lanes = &copies->bridge->lanes;

	memset(seen, 0, (BRIDGE_MAX_DONORS + 1) * sizeof(*seen));
	seen[copies->nr_donors].nr_ready = UINT32_MAX; /* the end */
	for (unsigned i = 0; i < lanes->nr; i++)
		bridge_lane_run(lanes->lane[i], see_links, seen);
	pthread_mutex_lock(&copies->lock);
	for (unsigned i = 0; i < copies->nr_donors; i++)
		copies->members[i].silent_ns = seen[i].silent_ns;
	pthread_mutex_unlock(&copies->lock);
}

void copies_set_state(struct bridge_copies *copies, unsigned donor, enum bridge_copy_state state,
	const struct weft_error *why)
{
	struct copies_member *member = &copies->members[donor];

	pthread_mutex_lock(&copies->lock);
	bool changes = member->state != state;
	if (state != BRIDGE_COPY_CURRENT && member->state == BRIDGE_COPY_CURRENT)
		member->since = time(NULL);
	member->state = state;
	member->why.code = 0;
	if (why)
		member->why = *why;
	pthread_mutex_unlock(&copies->lock);
	if (changes)
		attachment_changed(&copies->bridge->attachment);
}

/* ---- orders, generations ---- */

static void obey(struct bridge_lane *lane, void *ctx)
{
	lane_copies_set(lane, ctx);
}

void copies_order(struct bridge_copies *copies, const struct lane_copies_order *more)
{
	struct bridge *bridge = copies->bridge;
	struct lane_copies_order order = {0};

	if (more)
		order = *more;
	order.live = copies->live;
	order.joining = copies->joining;
	order.targets = copies->targets;
	order.refuse = copies->refuse;
	order.due = copies_any_due(copies);
	/* A copy that joins is waited for, and its lease counts once all have noted it. */
	attachment_set_current(&bridge->attachment, copies->live & ~copies->joining);
	for (unsigned i = 0; i < bridge->lanes.nr; i++)
		bridge_lane_run(bridge->lanes.lane[i], obey, &order);
}

void copies_change(struct bridge_copies *copies, unsigned stripe)
{
	const uint32_t live = copies->live & copies_of_stripe(copies, stripe);
	struct bridge_copies_known *known = &copies->known[stripe];

	pthread_mutex_lock(&copies->lock);
	known->change++;
	known->members = (uint16_t)(live >> stripe * copies->nr);
	known->same = false;
	pthread_mutex_unlock(&copies->lock);
	copies->state_due[stripe] = true;
	copies->noting = (copies->noting & ~copies_of_stripe(copies, stripe)) | live;
	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (live >> i & 1)
			copies->members[i].told_term = known->term;
}

/*
 * Another region is about to become the copy.  What the one before has noted must not count any
 * more, and its members know that, before the other one can be a member.  So there is a term under
 * which that copy was told nothing; then the members note that it is one region further; then the
 * other one notes who they are: from now on it is an answer, too.  Nobody else has the term: who
 * wants to claim it has to be granted a member, and those have granted us.
 */
bool copies_take_in(struct bridge_copies *copies, unsigned donor)
{
	const unsigned stripe = donor / copies->nr;
	struct bridge_copies_known *known = &copies->known[stripe];
	struct copies_member *member = &copies->members[donor];
	const struct weft_copies_asked ask = copies_question(copies, donor, WEFT_COPIES_NOTE);
	struct weft_copies_answer answer;

	if (!member->is_another)
		return true;
	if (member->is_counted) {
		/* Nothing is lost if it does not. */
		copies_ask(copies, donor, &ask, &answer);
		member->is_another = member->is_counted = false;
		member->told_term = known->term;
		return true;
	}
	pthread_mutex_lock(&copies->lock);
	if (member->told_term < known->term) {
		known->regions[donor % copies->nr]++;
		member->is_counted = true;
	} else {
		known->term++;
		known->change = 0;
	}
	pthread_mutex_unlock(&copies->lock);
	copies_change(copies, stripe);
	copies_order(copies, NULL);
	return false;
}

struct weft_copies_asked copies_question(const struct bridge_copies *copies, unsigned donor,
	enum weft_copies_action action)
{
	const struct bridge_copies_known *known = &copies->known[donor / copies->nr];

	return (struct weft_copies_asked){
		.action = action,
		.of = {.set = known->set,
			.index = (uint8_t)(donor % copies->nr + 1),
			.count = (uint8_t)copies->nr,
			.min = (uint8_t)copies->min},
		.term = known->term,
		.change = known->change,
		.members = action == WEFT_COPIES_NOTE ? known->members : 0,
		.regions = action == WEFT_COPIES_NOTE
			? weft_copies_regions_pack((uint8_t)copies->nr, known->regions)
			: 0,
	};
}

static void is_stale(struct bridge_copies *copies, const char *why)
{
	struct weft_error err;

	weft_error_set(&err, ESTALE, "%s", why);
	attachment_set_stale(&copies->bridge->attachment, &err);
}

static void has_answered(struct bridge_copies *copies, unsigned donor,
	const struct weft_copies_answer *answer)
{
	const struct bridge_copies_known *known = &copies->known[donor / copies->nr];

	if (answer->of.set == known->set && answer->term == known->term &&
		answer->change == known->change && answer->members == known->members &&
		answer->regions ==
			weft_copies_regions_pack((uint8_t)copies->nr, known->regions)) {
		copies->noting &= ~(1U << donor);
	} else if (answer->claimed > known->term || (answer->claimed == known->term &&
		!answer->mine)) {
		is_stale(copies, "another borrower has claimed the copies");
	} else if (answer->of.set == known->set && answer->term == known->term &&
		answer->change >= known->change) {
		/* Who is current is not what the state says: only the donors know it. */
		is_stale(copies, "more was noted of the copies than the state has: it is an older "
				 "one; attach anew");
	} else {
		/* It has taken nothing, whyever: it cannot be current. */
		copies->failed |= 1U << donor;
	}
}

/* Asks all that have not noted theirs yet at once. */
static void note_at_members(struct bridge_copies *copies)
{
	struct copies_io ios[BRIDGE_MAX_DONORS];
	struct weft_copies_answer answer;
	const uint32_t asked = copies->noting;

	for (unsigned i = 0; i < copies->nr_donors; i++) {
		struct weft_copies_asked ask = copies_question(copies, i, WEFT_COPIES_NOTE);

		if (asked >> i & 1)
			copies_ask_start(copies, &ios[i], i, &ask);
	}
	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (asked >> i & 1 && copies_ask_wait(copies, &ios[i], &answer) == 0 &&
			copies->noting >> i & 1)
			has_answered(copies, i, &answer);
}

void copies_note(struct bridge_copies *copies)
{
	const struct bridge_copies_config *config = &copies->bridge->attachment.config.copies;

	if (!copies_any_due(copies))
		return;
	for (unsigned i = 0; i < copies->nr_stripes; i++) {
		if (!copies->state_due[i])
			continue;
		if (config->note && config->note(config->ctx, i, &copies->known[i]) < 0)
			return;
		copies->state_due[i] = false;
	}
	if (copies->noting)
		note_at_members(copies);
	if (copies_any_due(copies))
		return;
	const uint32_t joined = copies->joining;
	copies->joining = 0;
	copies_order(copies, NULL);
	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (joined & copies->live & 1U << i)
			copies_set_state(copies, i, BRIDGE_COPY_CURRENT, NULL);
}

/* ---- losing one ---- */

static bool is_lost(const struct bridge_copies *copies, unsigned donor,
	const struct copies_seen *seen)
{
	return seen->silent_ns >= copies->lost_ns || copies->failed >> donor & 1 ||
		atomic_load(&copies->bridge->attachment.peers[donor].lost_contents);
}

static void say_why_lost(struct bridge_copies *copies, unsigned donor,
	const struct copies_seen *seen)
{
	struct bridge_peer *peer = &copies->bridge->attachment.peers[donor];
	struct weft_error why = seen->why;

	if (atomic_load(&peer->lost_contents)) {
		pthread_mutex_lock(&peer->attachment->lock);
		why = peer->left_why;
		pthread_mutex_unlock(&peer->attachment->lock);
	} else if (copies->failed >> donor & 1) {
		weft_error_set(&why, EIO, "the donor answered a write with an error");
	} else if (!why.code) {
		weft_error_set(&why, ETIMEDOUT, "silent for %u s",
			(unsigned)(seen->silent_ns / 1000000000));
	}
	copies_set_state(copies, donor, BRIDGE_COPY_LOST, &why);
}

static void leave(struct bridge_copies *copies, unsigned stripe, uint32_t lost,
	const struct copies_seen *seen)
{
	const struct lane_copies_order order = {.leave = lost};
	const uint64_t now_ns = weft_now_ns();

	copies->live &= ~lost;
	copies->joining &= ~lost;
	copies->gone &= ~lost;
	copies->refuse &= ~(1U << stripe);
	copies_change(copies, stripe);
	copies_order(copies, &order);
	for (unsigned i = 0; i < copies->nr_donors; i++) {
		if (!(lost >> i & 1))
			continue;
		copies->members[i].may_be_target = false;
		copies->members[i].spare_due_ns = now_ns + copies->spare_ns;
		copies->members[i].retry_ns = copies->failed >> i & 1
			? now_ns + copies->lost_ns
			: now_ns;
		say_why_lost(copies, i, &seen[i]);
	}
	copies->failed &= ~lost;
}

/* Nobody can be left behind: requests wait, or fail. */
static void too_few(struct bridge_copies *copies, unsigned stripe, uint32_t lost, uint32_t live)
{
	const struct bridge_attachment *attachment = &copies->bridge->attachment;
	const bool refuses = attachment->config.copies.fails_on_too_few;
	struct lane_copies_order order = {0};
	uint32_t gone = 0;

	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (live >> i & 1 && atomic_load(&attachment->peers[i].lost_contents))
			gone |= 1U << i;
	if (gone == live) {
		is_stale(copies, "the contents of all current copies are gone");
		return;
	}
	/* What waits for these will never arrive; once another is current they are left behind. */
	order.leave = gone & ~copies->gone;
	order.fail = copies->failed & lost & ~gone;
	copies->gone |= gone;
	if (!order.leave && !order.fail && (!refuses || copies->refuse >> stripe & 1))
		return;
	if (refuses)
		copies->refuse |= 1U << stripe;
	copies_order(copies, &order);
	copies->failed &= ~lost;
}

static void tend_stripe(struct bridge_copies *copies, unsigned stripe,
	const struct copies_seen *seen)
{
	const uint32_t live = copies->live & copies_of_stripe(copies, stripe);
	uint32_t lost = 0;

	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (live >> i & 1 && is_lost(copies, i, &seen[i]))
			lost |= 1U << i;
	if (!lost && copies->refuse >> stripe & 1) {
		copies->refuse &= ~(1U << stripe);
		copies_order(copies, NULL);
	}
	if (!lost)
		return;
	if ((unsigned)__builtin_popcount(live & ~lost) >= copies->min)
		leave(copies, stripe, lost, seen);
	else
		too_few(copies, stripe, lost, live);
}

static void tend_targets(struct bridge_copies *copies, const struct copies_seen *seen)
{
	struct lane_copies_order order = {0};

	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (copies->targets >> i & 1 &&
			(is_lost(copies, i, &seen[i]) ||
				seen[i].nr_ready < copies->bridge->lanes.nr))
			order.leave |= 1U << i;
	if (!order.leave)
		return;
	copies->targets &= ~order.leave;
	copies_order(copies, &order);
	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (order.leave >> i & 1) {
			copies->members[i].spare_due_ns = weft_now_ns() + copies->spare_ns;
			say_why_lost(copies, i, &seen[i]);
		}
}

/* ---- coming back ---- */

static void end_scout(struct bridge_lane *lane, void *ctx)
{
	lane_copies_end_scout(lane, *(const unsigned *)ctx);
}

static void restart(struct bridge_lane *lane, void *ctx)
{
	lane_copies_restart(lane, *(const unsigned *)ctx);
}

/* It has nothing of ours, or not what we know: all of it may differ. */
static void begin_anew(struct bridge_copies *copies, unsigned donor)
{
	struct bridge *bridge = copies->bridge;
	struct bridge_peer *peer = &bridge->attachment.peers[donor];

	bridge_lane_run(bridge->lanes.lane[0], end_scout, &donor);
	peer_begin_anew(peer, copies->members[donor].successor);
	copies->members[donor].successor = NULL;
	copies->members[donor].may_be_target = false;
	copies->members[donor].compare = true;
	copies->members[donor].nr_anew++;
	ranges_set(&copies->shared.behind[donor], 0, copies->shared.part_bytes);
	for (unsigned i = 0; i < bridge->lanes.nr; i++)
		bridge_lane_run(bridge->lanes.lane[i], restart, &donor);
}

/* Whether the region that answers is not the one that was the copy last. */
static bool is_another(const struct bridge_copies *copies, unsigned donor,
	const struct weft_copies_answer *answer)
{
	const unsigned copy = donor % copies->nr;

	return !answer->of.set ||
		agree_region(answer, copy) != copies->known[donor / copies->nr].regions[copy];
}

/* Whether what the donor has may be overwritten. */
static void ask_whose_it_is(struct bridge_copies *copies, unsigned donor)
{
	const struct bridge_copies_known *known = &copies->known[donor / copies->nr];
	struct copies_member *member = &copies->members[donor];
	struct weft_copies_asked ask = {.action = WEFT_COPIES_ASK};
	struct weft_copies_answer answer;
	struct weft_error why;
	int r = copies_ask(copies, donor, &ask, &answer);

	if (r < 0) {
		weft_error_set(&why, -r, "it does not say whose copy it is: %s", strerror(-r));
		copies_set_state(copies, donor, BRIDGE_COPY_LOST, &why);
	} else if (answer.claimed > known->term && answer.of.set == known->set) {
		is_stale(copies, "another borrower has claimed the copies");
	} else if (answer.claimed <= known->term &&
		agree_may_be_target(&answer, known->set, donor % copies->nr, copies->nr,
			copies->min)) {
		member->is_another = is_another(copies, donor, &answer);
		member->may_be_target = !member->is_another || member->is_counted ||
			known->regions[donor % copies->nr] <
				weft_copies_regions_max((uint8_t)copies->nr);
		if (member->may_be_target)
			return;
		weft_error_set(&why, EOVERFLOW,
			"it would be another region, and this copy had as many as are counted");
		copies_set_state(copies, donor, BRIDGE_COPY_LOST, &why);
	} else {
		weft_error_set(&why, EBUSY,
			"somebody else has written to the region: it is left alone");
		copies_set_state(copies, donor, BRIDGE_COPY_OTHERS, &why);
	}
}

/* The first that it reaches; nr_spares: none. */
static unsigned find_spare(struct bridge_copies *copies, unsigned donor)
{
	struct copies_member *member = &copies->members[donor];
	struct weft_error why;
	unsigned i = 0;

	while (i < copies->nr_spares &&
		!peer_reaches(&copies->bridge->attachment.peers[donor], copies->spares[i]))
		i++;
	if (i < copies->nr_spares)
		return i;
	weft_error_set(&why, ENODEV, "the spare %s cannot take its place: no way leads there",
		copies->spares[0]);
	copies_set_state(copies, donor, member->state, &why);
	member->spare_due_ns = weft_now_ns() + copies->spare_ns;
	return i;
}

/*
 * The region is given up for a spare.  Once no link asks for it any more, begin_anew() goes on
 * there.
 */
static void give_up_for_spare(struct bridge_copies *copies, unsigned donor, unsigned spare)
{
	const struct lane_copies_order order = {.leave = 1U << donor};
	struct bridge_peer *peer = &copies->bridge->attachment.peers[donor];
	struct copies_member *member = &copies->members[donor];
	struct weft_error why;

	member->successor = copies->spares[spare];
	memmove(copies->spares + spare, copies->spares + spare + 1,
		(copies->nr_spares - 1 - spare) * sizeof(copies->spares[0]));
	copies->spares[copies->nr_spares - 1] = peer_uri(peer);
	member->spare_due_ns = weft_now_ns() + copies->spare_ns;
	member->retry_ns = 0;
	member->may_be_target = false;
	weft_error_set(&why, ENODEV, "%s was lost for long: this one takes its place",
		peer_uri(peer));
	peer_set_stale(peer, &why);
	copies_order(copies, &order);
	copies_set_state(copies, donor, BRIDGE_COPY_LOST, &why);
}

static bool is_spare_due(const struct bridge_copies *copies, unsigned donor,
	const struct copies_seen *seen)
{
	const struct copies_member *member = &copies->members[donor];

	return copies->nr_spares > 0 && !member->successor &&
		weft_now_ns() >= member->spare_due_ns &&
		(member->state == BRIDGE_COPY_OTHERS ||
			seen->nr_ready < copies->bridge->lanes.nr);
}

static void revive(struct bridge_copies *copies, unsigned donor, const struct copies_seen *seen)
{
	const unsigned nr_lanes = copies->bridge->lanes.nr;
	struct copies_member *member = &copies->members[donor];
	const uint64_t now_ns = weft_now_ns();

	if (is_spare_due(copies, donor, seen)) {
		const unsigned spare = find_spare(copies, donor);

		if (spare < copies->nr_spares) {
			give_up_for_spare(copies, donor, spare);
			return;
		}
	}
	if (now_ns < member->retry_ns)
		return;
	if (seen->nr_idle == nr_lanes) {
		member->retry_ns = now_ns + copies->lost_ns;
		if (seen->why.code)
			copies_set_state(copies, donor, BRIDGE_COPY_LOST, &seen->why);
		begin_anew(copies, donor);
	} else if (seen->nr_ready == nr_lanes && !member->may_be_target && !member->successor) {
		member->retry_ns = now_ns + copies->lost_ns;
		ask_whose_it_is(copies, donor);
	}
}

void copies_tend(struct bridge_copies *copies)
{
	struct copies_seen seen[BRIDGE_MAX_DONORS + 1];

	if (atomic_load(&copies->bridge->attachment.stale))
		return;
	copies_see(copies, seen);
	copies_fetch_failed(copies);
	if (copies->making) {
		for (unsigned i = 0; i < copies->nr_donors; i++)
			if (copies->live >> i & 1 && is_lost(copies, i, &seen[i]))
				copies->failed |= 1U << i;
		return;
	}
	for (unsigned i = 0; i < copies->nr_stripes; i++)
		tend_stripe(copies, i, seen);
	tend_targets(copies, seen);
	copies_note(copies);
	/* Who takes the state over does not take other contents for what the state has. */
	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (!((copies->live | copies->targets) >> i & 1) &&
			!copies->state_due[i / copies->nr])
			revive(copies, i, &seen[i]);
}
