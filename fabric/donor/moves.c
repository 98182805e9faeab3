/* SPDX-License-Identifier: MIT */
/*
 * Regions that move: see moving.h.  Threads: any, under the donor's lock, which is dropped while
 * sessions end.
 */
#include "fabric/donor/moving.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/donor/donor-private.h"

/* A taker that is silent for so long has given up; its borrowers need not wait any longer. */
#define SILENT_NS (20000 * NS_PER_MS)

enum donor_move_state { MOVE_TRACKED, MOVE_FROZEN, MOVE_GIVING, MOVE_GIVEN };

struct donor_move {
	enum donor_move_state state;
	struct weft_moving to;
	bool held_back;   /* writers are: so they come where that can be done */
	uint64_t seen_ns; /* of the taker */
	uint64_t turn;    /* its newest connection that has asked */
	bool claimed;     /* somebody decides about it: see weft_donor_begin_giving() */
};

/* ---- who is let in ---- */

static bool is_reader(const struct donor_move *move, const struct weft_hello *hello)
{
	return !hello->anonymous && hello->mode == WEFT_MODE_SHARED &&
		weft_secret_equal(hello->id, move->to.reader, sizeof(move->to.reader));
}

static int check_tracked(const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_peer *peer, struct weft_error *err)
{
	const struct donor_move *move = region->move;
	const char *place = move->to.to;

	if (hello->anonymous || (!hello->follows && hello->mode != WEFT_MODE_SHARED))
		return weft_error_set(err, EBUSY,
			"region '%s' moves to %s, and %s cannot follow; it is free, here or there, "
			"when the move is over",
			region->name, place, hello->anonymous ? "this client" : "this borrower");
	/* A file that is written over RDMA is in memory, and a freeze would write it back first. */
	const bool seen_only = move->held_back || region->backing == WEFT_BACKING_FILE;
	if (hello->mode == WEFT_MODE_WRITE &&
		((peer->one_sided && (!peer->reports || seen_only)) || hello->has_alias))
		return weft_error_set(err, EBUSY,
			"region '%s' moves to %s: until that is over it is written over TCP, where "
			"the donor sees what changes",
			region->name, place);
	return 0;
}

int donor_check_move(const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_peer *peer, struct weft_error *err)
{
	const struct donor_move *move = region->move;

	if (weft_region_is_filling(region) && (peer->one_sided || peer->host[0]))
		return weft_error_set(err, EBUSY,
			"region '%s' is on its way here, and until all of it is here it is used "
			"over TCP",
			region->name);
	if (!move)
		return 0;
	if (move->state == MOVE_GIVEN && !(move->to.fills && is_reader(move, hello)))
		return weft_error_set(err, WEFT_EMOVED, "%s has the region now", move->to.to);
	if (is_reader(move, hello))
		return 0;
	if (move->state != MOVE_TRACKED)
		return weft_error_set(err, WEFT_EMOVING, "%s may have the region in a moment",
			move->to.to);
	return check_tracked(region, hello, peer, err);
}

const char *donor_given_to(const struct weft_region *region)
{
	const struct donor_move *move = region->move;

	return move && move->state == MOVE_GIVEN ? move->to.to : NULL;
}

void donor_moving_to(const struct weft_region *region, char ret[WEFT_PLACE_MAX])
{
	donor_copy_text(ret, WEFT_PLACE_MAX, region->move ? region->move->to.to : "");
}

/* ---- who has to go ---- */

static bool is_of_reader(const struct weft_attachment *a, const struct donor_move *move)
{
	uint8_t id_hash[16];

	if (a->anonymous || a->mode != WEFT_MODE_SHARED)
		return false;
	donor_id_hash(a->region, a->owner, move->to.reader, id_hash);
	return memcmp(id_hash, a->id_hash, sizeof(id_hash)) == 0;
}

static bool has_alias(const struct weft_attachment *a)
{
	for (const struct weft_grant *g = a->grants; g; g = g->next)
		if (g->has_alias || g->by_alias)
			return true;
	return false;
}

/*
 * A shared reader that came once, such as weft detach, is no reason to stay.  Of an attachment from
 * before a restart, whose borrower has not come back, nothing is known.
 */
static bool can_follow(const struct weft_attachment *a)
{
	return !a->anonymous && !has_alias(a) && (a->follows || a->mode == WEFT_MODE_SHARED);
}

static const char *name_of(const struct weft_attachment *a, char *buf, size_t size)
{
	const char *host = donor_host_of(a);

	if (host)
		snprintf(buf, size, "host '%s' over %s", host, a->peer.transport);
	else if (a->anonymous)
		snprintf(buf, size, "%u stock NBD client%s", a->nr_grants,
			a->nr_grants == 1 ? "" : "s");
	else
		snprintf(buf, size, "'%s'%s", a->name,
			has_alias(a)        ? " (the kernel has its socket)"
			: a->nr_grants == 0 ? " (which has not come back)"
					    : " (an older weft)");
	return buf;
}

static unsigned who_cannot_follow(const struct weft_donor *donor, const struct weft_region *region,
	char *text, size_t size, unsigned *ret_follow)
{
	char name[160];
	unsigned nr = 0;
	size_t used = 0;

	*ret_follow = 0;
	if (size > 0)
		text[0] = '\0';
	for (const struct weft_attachment *a = donor->attachments; a; a = a->next) {
		if (a->region != region || a->lapsed)
			continue;
		if (can_follow(a)) {
			*ret_follow += a->nr_grants > 0;
			continue;
		}
		if (used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s",
				nr > 0 ? ", " : "", name_of(a, name, sizeof(name)));
		nr++;
	}
	return nr;
}

unsigned weft_donor_who_cannot_follow(struct weft_donor *donor, const struct weft_region *region,
	char *text, size_t size, unsigned *ret_follow)
{
	pthread_mutex_lock(&donor->lock);
	unsigned nr = who_cannot_follow(donor, region, text, size, ret_follow);
	pthread_mutex_unlock(&donor->lock);
	return nr;
}

static struct weft_grant *one_to_fence(const struct weft_donor *donor,
	const struct weft_region *region, const struct donor_move *but, bool *ret_wait)
{
	*ret_wait = false;
	for (const struct weft_attachment *a = donor->attachments; a; a = a->next) {
		if (a->region != region || (but && is_of_reader(a, but)))
			continue;
		struct weft_grant *g = donor_unfenced(a, UINT64_MAX);

		if (g)
			return g;
		*ret_wait |= a->nr_grants > 0;
	}
	return NULL;
}

/*
 * Ends all sessions of the region that there are now, but for those of the move's reader.  0, or
 * -ETIMEDOUT.  The lock is held, and released meanwhile.
 */
static int end_sessions(struct weft_donor *donor, const struct weft_region *region,
	const struct donor_move *but)
{
	uint64_t deadline_ns = weft_now_ns() + donor->fence_timeout_ms * NS_PER_MS;
	struct weft_grant *g;
	bool wait;

	for (;;) {
		while ((g = one_to_fence(donor, region, but, &wait)) != NULL)
			donor_fence(donor, g);
		if (!wait)
			return 0;
		if (!donor_wait_for_change(donor, deadline_ns))
			return -ETIMEDOUT;
	}
}

/*
 * The same once: who comes back meanwhile is not ended again.  Those who were there before have no
 * session with a lower number of the look.
 */
static int end_present_sessions(struct weft_donor *donor, const struct weft_region *region)
{
	uint64_t deadline_ns = weft_now_ns() + donor->fence_timeout_ms * NS_PER_MS;
	uint64_t look = ++donor->looks;
	bool again = true;

	for (struct weft_attachment *a = donor->attachments; a; a = a->next)
		for (struct weft_grant *g = a->region == region ? a->grants : NULL; g; g = g->next)
			g->look = look;
	while (again) {
		again = false;
		for (struct weft_attachment *a = donor->attachments; a && !again; a = a->next)
			for (struct weft_grant *g = a->region == region ? a->grants : NULL;
				g && !again; g = g->next) {
				if (g->look != look)
					continue;
				again = true;
				if (!atomic_load(&g->fenced))
					donor_fence(donor, g);
				else if (!donor_wait_for_change(donor, deadline_ns))
					return -ETIMEDOUT;
			}
	}
	return 0;
}

int weft_donor_evict(struct weft_donor *donor, struct weft_region *region, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	if (region->move) {
		r = weft_error_set(err, EBUSY, "region '%s' moves to %s", region->name,
			region->move->to.to);
	} else {
		region->evicted = true;
		/* Those who wait for it are told. */
		pthread_cond_broadcast(&donor->changed);
		if (end_sessions(donor, region, NULL) < 0)
			r = weft_error_set(err, EBUSY, "region '%s': a session did not end in time",
				region->name);
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

void weft_donor_end_eviction(struct weft_donor *donor, struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	region->evicted = false;
	pthread_mutex_unlock(&donor->lock);
}

/* ---- the move ---- */

static int no_such_move(const struct weft_region *region, struct weft_error *err)
{
	return weft_error_set(err, ESTALE, "region '%s': that move is over", region->name);
}

static struct donor_move *move_of(const struct weft_region *region, uint64_t number)
{
	struct donor_move *move = region->move;

	/* Questions about another move are no sign of this one's taker. */
	if (!move || (number != 0 && move->to.number != number))
		return NULL;
	move->seen_ns = weft_now_ns();
	return move;
}

/*
 * The same, and nobody else decides about it before unclaim(), nor ends it.  Waits for those who do
 * so.  The lock is held, and released meanwhile.
 */
static struct donor_move *claim(struct weft_donor *donor, const struct weft_region *region,
	uint64_t number)
{
	struct donor_move *move;

	while ((move = move_of(region, number)) != NULL && move->claimed)
		pthread_cond_wait(&donor->changed, &donor->lock);
	if (move)
		move->claimed = true;
	return move;
}

static void unclaim(struct weft_donor *donor, const struct weft_region *region)
{
	if (region->move)
		region->move->claimed = false;
	pthread_cond_broadcast(&donor->changed);
}

static void end(struct weft_region *region)
{
	weft_region_untrack(region);
	weft_region_release(region);
	free(region->move);
	region->move = NULL;
}

/* What a file lacks that could move: it has to be known to whom it went, wherever it is opened. */
static const char *why_not(const struct weft_donor *donor, const struct weft_region *region)
{
	if (region->backing == WEFT_BACKING_MEMORY)
		return NULL;
	if (region->store_ops)
		return "is kept by a backend, which another donor can lend";
	if (region->block_bytes)
		return "is a block device";
	if (region->unmarked)
		return "is a file of a file system that keeps no attributes";
	for (unsigned i = 0; i < donor->nr_regions; i++)
		if (donor->regions[i].region == region && donor->regions[i].from_directory)
			return "is a file of a directory that is lent; --file lends it by itself";
	return NULL;
}

static int cannot_leave(const struct weft_donor *donor, const struct weft_region *region,
	struct weft_error *err)
{
	const char *why = why_not(donor, region);

	return why ? weft_error_set(err, EOPNOTSUPP, "region '%s' cannot move: it %s", region->name,
			     why)
		   : 0;
}

int weft_donor_may_leave(struct weft_donor *donor, const struct weft_region *region,
	struct weft_error *err)
{
	pthread_mutex_lock(&donor->lock);
	int r = cannot_leave(donor, region, err);
	pthread_mutex_unlock(&donor->lock);
	return r;
}

static int check_begin(struct weft_donor *donor, const struct weft_region *region, bool disconnect,
	struct weft_error *err)
{
	char names[300];
	unsigned nr_follow;

	if (region->move)
		return weft_error_set(err, EBUSY, "region '%s' moves already, to %s", region->name,
			region->move->to.to);
	int r = cannot_leave(donor, region, err);
	if (r < 0)
		return r;
	if (weft_region_is_filling(region))
		return weft_error_set(err, EBUSY,
			"region '%s' is still on its way to this donor; it can move when all of it "
			"is here",
			region->name);
	if (region->copies.set)
		return weft_error_set(err, EOPNOTSUPP,
			"region '%s' is a copy of a device; copies cannot move", region->name);
	if (!disconnect &&
		who_cannot_follow(donor, region, names, sizeof(names), &nr_follow) > 0)
		return weft_error_set(err, EBUSY,
			"region '%s' is used by who cannot follow: %s; with --disconnect they lose "
			"it",
			region->name, names);
	return 0;
}

int weft_donor_track(struct weft_donor *donor, struct weft_region *region,
	const struct weft_moving *moving, bool disconnect, struct weft_error *err)
{
	struct donor_move *move = calloc(1, sizeof(*move));

	if (!move)
		return weft_error_set(err, ENOMEM, "region '%s': no memory", region->name);
	move->to = *moving;
	move->seen_ns = weft_now_ns();
	pthread_mutex_lock(&donor->lock);
	int r = check_begin(donor, region, disconnect, err);
	if (r == 0 && weft_region_track(region) < 0)
		r = weft_error_set(err, ENOMEM, "region '%s': no memory", region->name);
	if (r < 0) {
		free(move);
	} else {
		region->move = move;
		bool ended = end_present_sessions(donor, region) == 0;

		/* The lock was open: somebody may have called the move off. */
		if (!move_of(region, moving->number)) {
			r = no_such_move(region, err);
		} else if (!ended) {
			r = weft_error_set(err, EBUSY, "region '%s': a session did not end in time",
				region->name);
			/* … or may have frozen it meanwhile, and it is theirs to end. */
			if (region->move->state == MOVE_TRACKED)
				end(region);
		}
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

int weft_donor_hold_back(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	uint64_t pace_ns_per_mib, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	struct donor_move *move = move_of(region, number);
	if (!move) {
		r = no_such_move(region, err);
	} else {
		atomic_store(&region->pace_ns_per_mib, pace_ns_per_mib);
		if (pace_ns_per_mib > 0 && !move->held_back) {
			move->held_back = true;
			donor_fence_unseen_writers(donor, region);
		}
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

int weft_donor_freeze(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	struct donor_move *move = move_of(region, number);
	if (!move) {
		r = no_such_move(region, err);
	} else if (move->state > MOVE_FROZEN) {
		r = weft_error_set(err, EBUSY, "region '%s' is being given away", region->name);
	} else {
		const struct donor_move but = *move;

		move->state = MOVE_FROZEN;
		atomic_store(&region->pace_ns_per_mib, 0);
		bool ended = end_sessions(donor, region, &but) == 0;
		/* The lock was open: somebody may have called the move off. */
		move = move_of(region, number);
		if (!move) {
			r = no_such_move(region, err);
		} else if (!ended || move->state < MOVE_FROZEN) {
			/* An earlier question may have given up, after which others were let in. */
			r = weft_error_set(err, EBUSY, "region '%s': a session did not end in time",
				region->name);
			if (move->state == MOVE_FROZEN)
				move->state = MOVE_TRACKED;
		}
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

int weft_donor_begin_giving(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	struct donor_move *move = claim(donor, region, number);
	if (!move) {
		r = no_such_move(region, err);
	} else if (move->state == MOVE_TRACKED) {
		r = weft_error_set(err, EBUSY, "region '%s' is not frozen", region->name);
		unclaim(donor, region);
	} else if (move->state == MOVE_FROZEN) {
		move->state = MOVE_GIVING;
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

void weft_donor_not_given(struct weft_donor *donor, struct weft_region *region, bool certain)
{
	pthread_mutex_lock(&donor->lock);
	if (certain && region->move->state == MOVE_GIVING)
		region->move->state = MOVE_FROZEN;
	unclaim(donor, region);
	pthread_mutex_unlock(&donor->lock);
}

void weft_donor_given(struct weft_donor *donor, struct weft_region *region, bool fills)
{
	pthread_mutex_lock(&donor->lock);
	if (region->move->state != MOVE_GIVEN) {
		region->move->state = MOVE_GIVEN;
		region->move->to.fills = fills;
		weft_region_untrack(region);
		/* The reader is the last; it changes nothing, so that nobody waits for its end. */
		if (!fills)
			end_sessions(donor, region, NULL);
	}
	unclaim(donor, region);
	pthread_mutex_unlock(&donor->lock);
}

int weft_donor_claim_given(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	const struct donor_move *move = claim(donor, region, number);
	if (move && move->state != MOVE_GIVEN)
		unclaim(donor, region);
	if (!move || move->state != MOVE_GIVEN)
		r = no_such_move(region, err);
	pthread_mutex_unlock(&donor->lock);
	return r;
}

void weft_donor_unclaim(struct weft_donor *donor, struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	unclaim(donor, region);
	pthread_mutex_unlock(&donor->lock);
}

int weft_donor_unfreeze(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	struct donor_move *move = move_of(region, number);
	if (!move)
		r = no_such_move(region, err);
	else if (move->state > MOVE_FROZEN)
		r = weft_error_set(err, EBUSY, "region '%s' has moved, to %s", region->name,
			move->to.to);
	else
		end(region);
	pthread_mutex_unlock(&donor->lock);
	return r;
}

int weft_donor_was_given(struct weft_donor *donor, struct weft_region *region,
	const struct weft_moving *moving)
{
	struct donor_move *move = calloc(1, sizeof(*move));

	if (!move)
		return -ENOMEM;
	move->to = *moving;
	move->state = MOVE_GIVEN;
	pthread_mutex_lock(&donor->lock);
	region->move = move;
	pthread_mutex_unlock(&donor->lock);
	return 0;
}

void weft_donor_take_back(struct weft_donor *donor, struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	end(region);
	unclaim(donor, region);
	pthread_mutex_unlock(&donor->lock);
}

int weft_donor_keep_reader_out(struct weft_donor *donor, struct weft_region *region,
	struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	const bool fills = region->move->to.fills;
	region->move->to.fills = false;
	if (end_sessions(donor, region, NULL) < 0) {
		region->move->to.fills = fills;
		r = weft_error_set(err, EBUSY, "region '%s': a session did not end in time",
			region->name);
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

void weft_donor_stays_given(struct weft_donor *donor, struct weft_region *region, uint64_t epoch,
	bool fills)
{
	pthread_mutex_lock(&donor->lock);
	region->epoch = epoch;
	region->move->to.fills = fills;
	pthread_mutex_unlock(&donor->lock);
}

void weft_donor_begin_anew(struct weft_donor *donor, struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	region->promised_lease_ms =
		(uint32_t)weft_max(weft_max(donor_longest_lease_ms(donor, region), donor->lease_ms),
			region->promised_lease_ms);
	/* None of them goes on with these contents. */
	for (struct weft_attachment *a = donor->attachments; a; a = a->next)
		a->lapsed |= a->region == region;
	donor_lose_contents(region);
	weft_region_note_lease(region, region->promised_lease_ms);
	weft_region_note_tenure(region, weft_random_name());
	donor_begin_grace(region);
	end(region);
	unclaim(donor, region);
	pthread_mutex_unlock(&donor->lock);
}

bool weft_donor_get_reader(struct weft_donor *donor, const struct weft_region *region,
	uint64_t number, uint8_t *ret)
{
	pthread_mutex_lock(&donor->lock);
	const struct donor_move *move = move_of(region, number);
	if (move)
		memcpy(ret, move->to.reader, sizeof(move->to.reader));
	pthread_mutex_unlock(&donor->lock);
	return move;
}

enum weft_moving_state weft_donor_moving_state(struct weft_donor *donor,
	const struct weft_region *region, uint64_t *ret_number)
{
	static const enum weft_moving_state states[] = {
		[MOVE_TRACKED] = WEFT_MOVES,
		[MOVE_FROZEN] = WEFT_MOVES,
		[MOVE_GIVING] = WEFT_IS_GIVEN_NOW,
		[MOVE_GIVEN] = WEFT_WAS_GIVEN,
	};
	enum weft_moving_state state = WEFT_STAYS;

	*ret_number = 0;
	pthread_mutex_lock(&donor->lock);
	if (region->move) {
		state = states[region->move->state];
		*ret_number = region->move->to.number;
	}
	pthread_mutex_unlock(&donor->lock);
	return state;
}

bool weft_donor_gave(struct weft_donor *donor, const char *name)
{
	bool gave = false;

	pthread_mutex_lock(&donor->lock);
	for (unsigned i = 0; i < donor->nr_regions; i++)
		gave |= strcmp(donor->regions[i].region->name, name) == 0 &&
			donor_given_to(donor->regions[i].region);
	pthread_mutex_unlock(&donor->lock);
	return gave;
}

bool weft_donor_is_moving(struct weft_donor *donor, const struct weft_region *region,
	uint64_t number)
{
	pthread_mutex_lock(&donor->lock);
	bool is = move_of(region, number) != NULL;
	pthread_mutex_unlock(&donor->lock);
	return is;
}

int weft_donor_take_changes(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	uint64_t turn, uint64_t first, uint64_t nr, uint64_t *ret, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	struct donor_move *move = move_of(region, number);
	if (!move) {
		r = no_such_move(region, err);
	} else if (turn < move->turn) {
		r = weft_error_set(err, ESTALE,
			"region '%s': its taker has asked over a newer connection", region->name);
	} else {
		move->turn = turn;
		if (nr > 0 && region->changes) /* none after a restart */
			weft_region_take_changes(region, first, nr, ret);
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

/* A taker that reads need not ask. */
static uint64_t reader_seen_ns(const struct weft_donor *donor, const struct weft_region *region)
{
	uint64_t seen_ns = 0;

	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		for (const struct weft_grant *g =
				a->region == region && is_of_reader(a, region->move) ? a->grants
										     : NULL;
			g; g = g->next)
			seen_ns = weft_max(seen_ns,
				weft_min(atomic_load(&g->last_seen_ns), INT64_MAX));
	return seen_ns;
}

void donor_moves_tick(struct weft_donor *donor, struct weft_region *region, uint64_t now_ns)
{
	struct donor_move *move = region->move;

	if (!move || move->state > MOVE_FROZEN || now_ns < move->seen_ns + SILENT_NS ||
		now_ns < reader_seen_ns(donor, region) + SILENT_NS)
		return;
	weft_warn("region '%s': the donor to which it moves, at %s, is silent: it stays here",
		region->name, move->to.to);
	end(region);
}
