/* SPDX-License-Identifier: MIT */
/*
 * Making copies the same: one that is behind, so that it becomes current again, and what may differ
 * at current ones after a request that failed.  The thread that keeps the copies.
 *
 * A copy that is being made current gets each write from the beginning.  What it may lack beyond
 * that goes over to it a window at a time, of which nobody writes anything meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"

enum { SOON_MS = 1, PAUSE_MAX_MS = 200 };

struct sync {
	struct bridge_copies *copies;
	unsigned donor, stripe;
	uint64_t begin_ns, done_bytes;
};

static bool is_target(const struct sync *sync)
{
	return sync->copies->targets >> sync->donor & 1 && !copies_is_ending(sync->copies) &&
		!atomic_load(&sync->copies->bridge->attachment.stale);
}

/* Waits until no request of before the last turn is under way.  False: the copy was lost. */
static bool wait_for_old(struct sync *sync)
{
	struct bridge_copies *copies = sync->copies;
	const struct bridge_lanes *lanes = &copies->bridge->lanes;

	for (;;) {
		uint32_t left = 0;

		for (unsigned i = 0; i < lanes->nr; i++)
			left += lane_copies_old_left(lanes->lane[i]);
		if (left == 0)
			return true;
		copies_wait(copies, SOON_MS);
		copies_tend(copies);
		if (!is_target(sync))
			return false;
	}
}

/* While somebody waits, its donor may come back without its memory, and begin anew. */
struct source {
	unsigned donor;
	uint64_t nr_anew;
};

static bool is_itself(const struct bridge_copies *copies, const struct source *source)
{
	return copies->members[source->donor].nr_anew == source->nr_anew;
}

/*
 * A current copy of the stripe that can be read; false: there is none now.  The bytes that are to
 * be read are taken: what a copy lacks of them is known.
 */
static bool source_of(struct bridge_copies *copies, unsigned stripe, uint32_t rather,
	const struct copies_seen *seen, struct source *ret)
{
	uint32_t fit = copies->live & ~copies->joining & copies_of_stripe(copies, stripe);
	uint32_t ready = 0;

	copies_fetch_failed(copies);
	fit &= ~copies->failed;
	if (copies->making)
		fit &= rather;
	for (unsigned i = 0; i < copies->nr_donors; i++) {
		if (atomic_load(&copies->bridge->attachment.peers[i].lost_contents))
			fit &= ~(1U << i);
		else if (fit >> i & 1 && seen[i].nr_ready > 0 && seen[i].silent_ns == 0)
			ready |= 1U << i;
	}
	if (!ready)
		ready = fit;
	if (ready & rather)
		ready &= rather;
	if (!ready)
		return false;
	ret->donor = (unsigned)__builtin_ctz(ready);
	ret->nr_anew = copies->members[ret->donor].nr_anew;
	return true;
}

static int run(struct bridge_copies *copies, unsigned donor, uint8_t kind, uint64_t off,
	uint64_t len, void *buf)
{
	struct copies_io io;

	copies_io_start(copies, &io, donor, kind, off, len, buf);
	return copies_io_wait(copies, &io, true);
}

/*
 * Whether all lanes are connected to these donors.  A write that was given up with its connection
 * may arrive until that lane is connected anew: not over what is copied.
 */
static bool all_are_connected(const struct bridge_copies *copies, uint32_t donors,
	const struct copies_seen *seen)
{
	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (donors >> i & 1 && seen[i].nr_ready < copies->bridge->lanes.nr)
			return false;
	return true;
}

/* A run of bytes, of which some may be the same already: only with hashes that differ. */
static int copy_run(struct bridge_copies *copies, const struct source *from, unsigned to,
	uint64_t off, uint64_t len)
{
	int r = is_itself(copies, from)
		? run(copies, from->donor, TP_READ, off, len, copies->memory)
		: -ESTALE;

	if (r < 0)
		return r;
	if (!is_itself(copies, from))
		return -ESTALE;
	r = run(copies, to, TP_WRITE, off, len, copies->memory);
	/* It may still arrive, over what is written there next. */
	if (r < 0)
		copies->failed |= (1U << to) & copies->live;
	else
		copies->members[to].nr_copied += len;
	return r;
}

static int hash_both(struct bridge_copies *copies, const struct source *from, unsigned to,
	uint64_t off, uint64_t len, uint8_t *hashes[2])
{
	struct copies_io ios[2];
	const unsigned donors[2] = {from->donor, to};
	int r = 0;

	for (unsigned i = 0; i < 2; i++) {
		ios[i].hashing = (struct weft_hashing){.block_bytes = COPIES_BLOCK};
		if (i == 0)
			weft_random(ios[0].hashing.key, sizeof(ios[0].hashing.key));
		else
			ios[1].hashing = ios[0].hashing;
		copies_io_start(copies, &ios[i], donors[i], TP_HASH, off, len, hashes[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		int one = copies_io_wait(copies, &ios[i], true);

		r = r < 0 ? r : one;
	}
	return r < 0 || is_itself(copies, from) ? r : -ESTALE;
}

/* Bytes that can be hashed at once at both; 0: none. */
static uint64_t hashed_at_once(struct bridge_copies *copies, unsigned from, unsigned to)
{
	struct bridge_attachment *attachment = &copies->bridge->attachment;

	pthread_mutex_lock(&attachment->lock);
	uint64_t blocks = weft_min(attachment->peers[from].info.max_hash_blocks,
		attachment->peers[to].info.max_hash_blocks);
	pthread_mutex_unlock(&attachment->lock);
	return blocks * COPIES_BLOCK;
}

/* What is the same stays. */
static int copy_what_differs(struct bridge_copies *copies, const struct source *from, unsigned to,
	uint64_t off, uint64_t len)
{
	uint8_t *hashes[2];
	int r;

	hashes[0] = copies->memory + COPIES_WINDOW;
	hashes[1] = hashes[0] + COPIES_WINDOW / COPIES_BLOCK * WEFT_HASH_BYTES;
	r = hash_both(copies, from, to, off, len, hashes);
	for (uint64_t at = 0, end; at < len && r == 0; at = end) {
		bool differs = false;

		for (end = at; end < len; end += COPIES_BLOCK) {
			const uint64_t hash = end / COPIES_BLOCK * WEFT_HASH_BYTES;
			bool block = memcmp(hashes[0] + hash, hashes[1] + hash, WEFT_HASH_BYTES);

			if (end == at)
				differs = block;
			else if (block != differs)
				break;
		}
		end = weft_min(end, len);
		if (differs)
			r = copy_run(copies, from, to, off + at, end - at);
	}
	return r;
}

/* Up to COPIES_WINDOW bytes, which nobody writes meanwhile.  compare: what is the same stays. */
static int copy_window(struct bridge_copies *copies, const struct source *from, unsigned to,
	uint64_t off, uint64_t len, bool compare)
{
	const uint64_t at_once = compare ? hashed_at_once(copies, from->donor, to) : 0;
	int r = 0;

	if (at_once == 0)
		return copy_run(copies, from, to, off, len);
	for (uint64_t at = 0; at < len && r == 0; at += at_once)
		r = copy_what_differs(copies, from, to, off + at, weft_min(at_once, len - at));
	return r;
}

/* Takes the window for the keeper.  False: the copy was lost, or the end is near. */
static bool take(struct sync *sync, uint64_t off, uint64_t len)
{
	struct bridge_copies *copies = sync->copies;
	struct lanes_copies *shared = &copies->shared;
	struct bridge_lanes *lanes = &copies->bridge->lanes;
	bool taken = lanes_copies_take(shared, sync->stripe, off, len);

	if (taken)
		return true;
	/* Otherwise who writes there all the time would have them all the time. */
	lanes_copies_want(shared, lanes, sync->stripe, off, len);
	while (!taken && is_target(sync)) {
		copies_wait(copies, SOON_MS);
		copies_tend(copies);
		taken = lanes_copies_take(shared, sync->stripe, off, len);
	}
	lanes_copies_want(shared, lanes, sync->stripe, 0, 0);
	return taken;
}

static void give(struct sync *sync, uint64_t off, uint64_t len)
{
	lanes_copies_give(&sync->copies->shared, &sync->copies->bridge->lanes, sync->stripe, off,
		len);
}

static uint64_t behind_bytes(const struct sync *sync)
{
	const struct ranges *behind = &sync->copies->shared.behind[sync->donor];

	return atomic_load(&behind->nr_set) << behind->shift;
}

/*
 * While others use the device the keeper rests as long as it worked; not if the copy would not be
 * whole again in time.
 */
static void pace(struct sync *sync, uint64_t took_ns)
{
	struct bridge_copies *copies = sync->copies;
	const uint64_t now_ns = weft_now_ns(), gone_ns = weft_max(now_ns - sync->begin_ns, 1);
	const double rate = (double)sync->done_bytes / (double)gone_ns;
	const double left_ns = rate > 0 ? (double)behind_bytes(sync) / rate : 0;

	pthread_mutex_lock(&copies->lock);
	copies->members[sync->donor].eta_s = (uint64_t)(left_ns / 1e9) + 1;
	pthread_mutex_unlock(&copies->lock);
	if (lanes_are_idle(&copies->bridge->lanes) ||
		(double)gone_ns + left_ns > (double)copies->whole_ns)
		return;
	const uint64_t end_ns = now_ns + weft_min(took_ns, PAUSE_MAX_MS * UINT64_C(1000000));
	while (weft_now_ns() < end_ns && is_target(sync))
		copies_wait(copies, SOON_MS);
}

/* Of bytes that are taken. */
static int sync_taken(struct sync *sync, uint64_t off, uint64_t len)
{
	struct bridge_copies *copies = sync->copies;
	struct ranges *behind = &copies->shared.behind[sync->donor];
	struct copies_seen seen[BRIDGE_MAX_DONORS + 1];
	struct source from;

	copies_see(copies, seen);
	if (!source_of(copies, sync->stripe, 0, seen, &from) ||
		!all_are_connected(copies, 1U << sync->donor, seen))
		return -ENOTCONN;
	ranges_clear(behind, off, len);
	int r = copy_window(copies, &from, sync->donor, off, len,
		copies->members[sync->donor].compare);
	if (r < 0)
		ranges_set(behind, off, len);
	return r;
}

static int sync_window(struct sync *sync, uint64_t off, uint64_t len)
{
	if (!take(sync, off, len))
		return -ECANCELED;
	const uint64_t begin_ns = weft_now_ns();
	int r = sync_taken(sync, off, len);
	give(sync, off, len);
	if (r == 0) {
		sync->done_bytes += len;
		pace(sync, weft_now_ns() - begin_ns);
	}
	return r;
}

/* These have what they had, whatever the others are made to have. */
static void set_behind(struct bridge_copies *copies, uint32_t donors, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < copies->nr_donors; i++)
		if (donors >> i & 1)
			ranges_set(&copies->shared.behind[i], off, len);
}

/* Makes bytes of all current copies as one has them. */
static int copy_to_all(struct bridge_copies *copies, unsigned stripe, unsigned source,
	uint64_t off, uint64_t len)
{
	struct lanes_copies *shared = &copies->shared;
	struct bridge_lanes *lanes = &copies->bridge->lanes;
	struct copies_seen seen[BRIDGE_MAX_DONORS + 1];
	struct source from = {.donor = source};
	int r = 0;

	lanes_copies_want(shared, lanes, stripe, off, len);
	while (!lanes_copies_take(shared, stripe, off, len)) {
		copies_wait(copies, SOON_MS);
		copies_tend(copies);
		if (copies_is_ending(copies)) {
			lanes_copies_want(shared, lanes, stripe, 0, 0);
			return -ESHUTDOWN;
		}
	}
	lanes_copies_want(shared, lanes, stripe, 0, 0);
	copies_fetch_failed(copies);
	copies_see(copies, seen);
	const uint32_t live = copies->live & copies_of_stripe(copies, stripe);
	if (!((live & ~copies->joining & ~copies->failed) >> source & 1) ||
		ranges_has_any(&shared->torn[stripe], off, len) ||
		!all_are_connected(copies, live, seen))
		r = -EAGAIN;
	from.nr_anew = copies->members[source].nr_anew;
	if (r == 0)
		set_behind(copies, copies_of_stripe(copies, stripe) & ~live, off, len);
	for (unsigned i = 0; i < copies->nr_donors && r == 0; i++)
		if (live >> i & 1 && i != source)
			r = copy_window(copies, &from, i, off, len, true);
	lanes_copies_give(shared, lanes, stripe, off, len);
	return r;
}

static void end_repair(struct bridge_copies *copies, int error)
{
	pthread_mutex_lock(&copies->lock);
	copies->repair.error = error;
	copies->repair.asked = false;
	copies->repair.end_ns = weft_now_ns();
	pthread_cond_broadcast(&copies->changed);
	pthread_mutex_unlock(&copies->lock);
}

bool copies_repair(struct bridge_copies *copies)
{
	pthread_mutex_lock(&copies->lock);
	const struct copies_repair repair = copies->repair;
	pthread_mutex_unlock(&copies->lock);
	if (!repair.asked)
		return false;
	end_repair(copies, copy_to_all(copies, repair.stripe, repair.source, repair.off,
				   repair.len));
	return true;
}

/* All that it was behind by goes over.  False: it does not. */
static bool catch_up(struct sync *sync)
{
	struct bridge_copies *copies = sync->copies;
	const struct ranges *behind = &copies->shared.behind[sync->donor];
	uint64_t off, len, from = 0;
	unsigned nr_failures = 0;

	while (!ranges_empty(behind)) {
		if (!is_target(sync))
			return false;
		if (!ranges_next(behind, from, COPIES_WINDOW, copies->shared.part_bytes, &off,
			    &len)) {
			from = 0;
			continue;
		}
		int r = sync_window(sync, off, len);
		from = off + len;
		copies_tend(copies);
		copies_mend(copies);
		copies_repair(copies);
		/* Its window stays behind, and is tried again, with another source perhaps. */
		if (r < 0 && ++nr_failures > 100)
			return false;
		if (r < 0)
			copies_wait(copies, COPIES_SOON_MS);
	}
	return is_target(sync);
}

/*
 * From now on it is waited for; then it is a member.  False: a write has missed it in the last
 * moment.
 */
static bool join(struct sync *sync)
{
	struct bridge_copies *copies = sync->copies;
	const uint32_t bit = 1U << sync->donor;

	if (copies_any_due(copies)) {
		copies_wait(copies, SOON_MS);
		copies_tend(copies);
		return false;
	}
	copies->targets &= ~bit;
	copies->live |= bit;
	copies->joining |= bit;
	copies->state_due[sync->stripe] = true;
	copies_order(copies, NULL);
	copies_fetch_failed(copies);
	if (!ranges_empty(&copies->shared.behind[sync->donor]) || copies->failed & bit) {
		copies->live &= ~bit;
		copies->joining &= ~bit;
		copies->failed &= ~bit;
		copies->targets |= bit;
		copies->state_due[sync->stripe] = false;
		copies_order(copies, NULL);
		return false;
	}
	copies_change(copies, sync->stripe);
	copies_tend(copies);
	return true;
}

static bool can_be_target(struct bridge_copies *copies, unsigned donor,
	const struct copies_seen *seen)
{
	return !(copies->live >> donor & 1) && copies->members[donor].may_be_target &&
		seen[donor].nr_ready == copies->bridge->lanes.nr &&
		weft_now_ns() >= copies->members[donor].retry_ns;
}

bool copies_sync(struct bridge_copies *copies)
{
	struct sync sync = {.copies = copies, .begin_ns = weft_now_ns()};
	const struct lane_copies_order turn = {.turn = true};
	struct copies_seen seen[BRIDGE_MAX_DONORS + 1];

	if (copies_any_due(copies))
		return false;
	copies_see(copies, seen);
	while (sync.donor < copies->nr_donors && !can_be_target(copies, sync.donor, seen))
		sync.donor++;
	if (sync.donor == copies->nr_donors)
		return false;
	sync.stripe = sync.donor / copies->nr;
	if (!copies_take_in(copies, sync.donor))
		return true;
	copies_set_state(copies, sync.donor, BRIDGE_COPY_SYNCING, NULL);
	copies->targets |= 1U << sync.donor;
	/* Requests from now on go there too; those of before have to be over. */
	bool good = wait_for_old(&sync);
	if (good) {
		copies_order(copies, &turn);
		good = wait_for_old(&sync);
	}
	while (good && (good = catch_up(&sync)) && !join(&sync))
		;
	if (good) {
		copies->members[sync.donor].compare = false;
		return true;
	}
	copies->members[sync.donor].retry_ns = weft_now_ns() + copies->lost_ns;
	if (copies->targets >> sync.donor & 1) {
		const struct lane_copies_order order = {0};

		copies->targets &= ~(1U << sync.donor);
		copies_order(copies, &order);
		copies_set_state(copies, sync.donor, BRIDGE_COPY_LOST, NULL);
	}
	return true;
}

/* ---- what may differ at current copies ---- */

/* Of bytes that are taken. */
static int mend_taken(struct bridge_copies *copies, unsigned stripe, uint64_t off, uint64_t len)
{
	const uint32_t all = copies_of_stripe(copies, stripe), live = copies->live & all;
	struct copies_seen seen[BRIDGE_MAX_DONORS + 1];
	struct source from;
	int r = 0;

	copies_see(copies, seen);
	if (!source_of(copies, stripe, atomic_load(&copies->shared.forward[stripe]), seen,
		    &from) ||
		!all_are_connected(copies, live, seen))
		return -ENOTCONN;
	for (unsigned i = 0; i < copies->nr_donors && r == 0; i++)
		if (live >> i & 1 && i != from.donor)
			r = copy_window(copies, &from, i, off, len, true);
	set_behind(copies, all & ~live, off, len);
	return r;
}

static bool mend_window(struct bridge_copies *copies, unsigned stripe, uint64_t off, uint64_t len)
{
	if (!lanes_copies_take(&copies->shared, stripe, off, len))
		return false;
	int r = mend_taken(copies, stripe, off, len);
	/* What failed in between had landed before: it is the same now. */
	if (r == 0)
		ranges_clear(&copies->shared.torn[stripe], off, len);
	lanes_copies_give(&copies->shared, &copies->bridge->lanes, stripe, off, len);
	return r == 0;
}

bool copies_mend(struct bridge_copies *copies)
{
	struct copies_seen seen[BRIDGE_MAX_DONORS + 1];
	uint64_t off, len;
	bool any = false;

	for (unsigned i = 0; i < copies->nr_stripes; i++)
		any |= !ranges_empty(&copies->shared.torn[i]);
	if (!any)
		return false;
	any = false;
	copies_see(copies, seen);
	for (unsigned i = 0; i < copies->nr_stripes; i++) {
		struct ranges *torn = &copies->shared.torn[i];
		bool ready = !copies_any_due(copies);

		if (ranges_empty(torn))
			continue;
		for (unsigned d = 0; d < copies->nr_donors; d++)
			if (copies->live & copies_of_stripe(copies, i) & 1U << d)
				ready &= seen[d].nr_ready > 0;
		while (ready && ranges_next(torn, 0, COPIES_WINDOW, copies->shared.part_bytes, &off,
					&len)) {
			ready = !copies_is_given_up(copies) && mend_window(copies, i, off, len);
			any |= ready;
			copies_tend(copies);
		}
	}
	if (any)
		lanes_wake(&copies->bridge->lanes);
	return any;
}
