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
	uint64_t seen_ns; /* of the taker */
};

struct donor_elsewhere {
	struct donor_elsewhere *next;
	char *name;
	uint64_t epoch;
	char place[WEFT_PLACE_MAX];
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
	const char *place = region->move->to.to;

	if (hello->anonymous || (!hello->follows && hello->mode != WEFT_MODE_SHARED))
		return weft_error_set(err, EBUSY,
			"region '%s' moves to %s, and %s cannot follow; it is free, here or there, "
			"when the move is over",
			region->name, place, hello->anonymous ? "this client" : "this borrower");
	if (hello->mode == WEFT_MODE_WRITE && (peer->one_sided || hello->has_alias))
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

	if (!move)
		return 0;
	if (move->state == MOVE_GIVEN)
		return weft_error_set(err, WEFT_EMOVED, "%s has the region now", move->to.to);
	if (is_reader(move, hello))
		return 0;
	if (move->state != MOVE_TRACKED)
		return weft_error_set(err, WEFT_EMOVING, "%s may have the region in a moment",
			move->to.to);
	return check_tracked(region, hello, peer, err);
}

static struct donor_elsewhere *find_elsewhere(const struct weft_donor *donor, const char *name,
	uint64_t epoch)
{
	struct donor_elsewhere *e = donor->elsewhere;

	while (e && (strcmp(e->name, name) != 0 || (epoch && e->epoch != epoch)))
		e = e->next;
	return e;
}

int donor_check_elsewhere(const struct weft_donor *donor, const char *name, uint64_t epoch,
	struct weft_error *err)
{
	const struct donor_elsewhere *e = find_elsewhere(donor, name, epoch);

	if (!e)
		return 0;
	return weft_error_set(err, e->epoch ? WEFT_EMOVED : WEFT_EMOVING, "%s %s", e->place,
		e->epoch ? "has the region now" : "has the region in a moment");
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

int weft_donor_elsewhere(struct weft_donor *donor, const char *name, uint64_t epoch,
	const char *place)
{
	struct donor_elsewhere *e = calloc(1, sizeof(*e));

	if (!e || !(e->name = strdup(name))) {
		free(e);
		return -ENOMEM;
	}
	weft_donor_not_elsewhere(donor, name, epoch);
	e->epoch = epoch;
	donor_copy_text(e->place, sizeof(e->place), place);
	pthread_mutex_lock(&donor->lock);
	e->next = donor->elsewhere; /* the newest is found first */
	donor->elsewhere = e;
	pthread_mutex_unlock(&donor->lock);
	return 0;
}

static void forget(struct donor_elsewhere **at)
{
	struct donor_elsewhere *e = *at;

	*at = e->next;
	free(e->name);
	free(e);
}

void weft_donor_not_elsewhere(struct weft_donor *donor, const char *name, uint64_t epoch)
{
	pthread_mutex_lock(&donor->lock);
	for (struct donor_elsewhere **at = &donor->elsewhere; *at;) {
		if (strcmp((*at)->name, name) == 0 && (*at)->epoch == epoch)
			forget(at);
		else
			at = &(*at)->next;
	}
	pthread_mutex_unlock(&donor->lock);
}

void donor_moves_fini(struct weft_donor *donor)
{
	while (donor->elsewhere)
		forget(&donor->elsewhere);
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

/* ---- the move ---- */

static int no_such_move(const struct weft_region *region, struct weft_error *err)
{
	return weft_error_set(err, ESTALE, "region '%s': that move is over", region->name);
}

static struct donor_move *move_of(const struct weft_region *region, uint64_t number)
{
	struct donor_move *move = region->move;

	if (move)
		move->seen_ns = weft_now_ns();
	return move && (number == 0 || move->to.number == number) ? move : NULL;
}

static void end(struct weft_region *region)
{
	weft_region_untrack(region);
	free(region->move);
	region->move = NULL;
}

static int check_begin(struct weft_donor *donor, const struct weft_region *region, bool disconnect,
	struct weft_error *err)
{
	char names[300];
	unsigned nr_follow;

	if (region->move)
		return weft_error_set(err, EBUSY, "region '%s' moves already, to %s", region->name,
			region->move->to.to);
	if (region->backing != WEFT_BACKING_MEMORY)
		return weft_error_set(err, EOPNOTSUPP,
			"region '%s' is a file; only regions of memory can move", region->name);
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
			end(region);
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
		} else if (!ended) {
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
	struct donor_move *move = move_of(region, number);
	if (!move)
		r = no_such_move(region, err);
	else if (move->state == MOVE_TRACKED)
		r = weft_error_set(err, EBUSY, "region '%s' is not frozen", region->name);
	else if (move->state == MOVE_FROZEN)
		move->state = MOVE_GIVING;
	pthread_mutex_unlock(&donor->lock);
	return r;
}

void weft_donor_not_given(struct weft_donor *donor, struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	if (region->move->state == MOVE_GIVING)
		region->move->state = MOVE_FROZEN;
	pthread_mutex_unlock(&donor->lock);
}

void weft_donor_given(struct weft_donor *donor, struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	region->move->state = MOVE_GIVEN;
	weft_region_untrack(region);
	/* The reader is the last; it changes nothing, so that nobody waits for its end. */
	end_sessions(donor, region, NULL);
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

bool weft_donor_is_moving(struct weft_donor *donor, const struct weft_region *region,
	uint64_t number)
{
	pthread_mutex_lock(&donor->lock);
	bool is = move_of(region, number) != NULL;
	pthread_mutex_unlock(&donor->lock);
	return is;
}

void weft_donor_facts(struct weft_donor *donor, const struct weft_region *region,
	struct weft_region_facts *ret)
{
	pthread_mutex_lock(&donor->lock);
	weft_region_get_id_key(region, ret->id_key);
	ret->lease_ms = (uint32_t)weft_max(donor_longest_lease_ms(donor, region), donor->lease_ms);
	ret->stripe = region->stripe;
	memcpy(ret->table, region->generations, sizeof(ret->table));
	pthread_mutex_unlock(&donor->lock);
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
