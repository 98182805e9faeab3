/* SPDX-License-Identifier: MIT */
/*
 * Granting: whose turn it is, and whose sessions have to stop first.
 *
 * Threads: any; the donor's lock is dropped while a fence() is called and while waiting.
 * Invariants: after a generation was raised no grant of a lower one is made, and no grant of the
 * new one before the lower ones are gone.  Two attachments of one region that exclude each other
 * never have unfenced sessions at the same time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/donor/donor-private.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

/* Shared readers exclude nobody, readers exclude writers, writers exclude writers and readers. */
static bool exclude_each_other(enum weft_mode a, enum weft_mode b)
{
	if (a == WEFT_MODE_SHARED || b == WEFT_MODE_SHARED)
		return false;
	return a == WEFT_MODE_WRITE || b == WEFT_MODE_WRITE;
}

static bool has_grants_below(const struct weft_attachment *a, uint64_t below)
{
	for (struct weft_grant *g = a->grants; g; g = g->next)
		if (g->generation < below)
			return true;
	return false;
}

static int refuse_busy(const struct weft_attachment *a, uint64_t now_ns, struct weft_error *err)
{
	uint64_t silent = donor_silent_ns(a, now_ns), lease = donor_lease_ns(a);
	double silent_s = (double)silent / 1e9,
	       left_s = (double)(lease > silent ? lease - silent : 0) / 1e9;
	const char *as = a->mode == WEFT_MODE_WRITE ? "writer" : "reader";

	if (donor_host_of(a))
		return weft_error_set(err, EBUSY,
			"region '%s' is in use by host '%s' over %s (from %s); it is free once "
			"that host logs out",
			a->region->name, donor_host_of(a), a->peer.transport, a->peer.text);
	if (a->anonymous)
		return weft_error_set(err, EBUSY,
			"region '%s' is in use by %u stock NBD client%s (the newest from "
			"%s); it is free once they disconnect",
			a->region->name, a->nr_grants, a->nr_grants == 1 ? "" : "s", a->peer.text);
	if (a->nr_grants == 0)
		return weft_error_set(err, EBUSY,
			"region '%s' is held by %s '%s'%s%s, which disconnected and was "
			"last heard from %.1f s ago; it is free in %.1f s, unless '%s' comes back",
			a->region->name, as, a->name, *a->peer.text ? " from " : "", a->peer.text,
			silent_s, left_s, a->name);
	return weft_error_set(err, EBUSY,
		"region '%s' is held by %s '%s' from %s, last heard from %.1f s ago; it "
		"is free once '%s' detaches, or in %.1f s if '%s' stays silent",
		a->region->name, as, a->name, a->peer.text, silent_s, a->name, left_s, a->name);
}

/* What one call of weft_donor_grant() wants. */
struct wish {
	struct weft_donor *donor;
	struct weft_region *region;
	const struct weft_hello *hello;
	const struct weft_peer *peer;
	char owner[WEFT_KEY_NAME_MAX + 1]; /* the name of its key, or "" */
	int64_t expires;                   /* as a grant's */
	uint64_t life;                     /* as a peer's */
	uint64_t tenure_owner;             /* as a region's */
	uint8_t id_hash[16];
	enum weft_mode mode;
	uint64_t generation;         /* 0 for an anonymous one */
	const uint8_t *alias;        /* by which it comes; NULL: it says itself who it is */
	struct weft_attachment *own; /* once claimed: counted in its nr_waiters */
	/* entries that it changed, as a writer that is about to be granted */
	uint64_t overtaken;
	bool is_news; /* granted: the attachment had no session from there by this key */
	bool goes_on; /* the process that held the region before reconnects, or adds a session */
};

static int no_such_alias(struct weft_error *err)
{
	return weft_error_set(err, ENOENT, "no session has this alias, or none any more");
}

/*
 * Makes the wish of a peer that comes by an alias that of the session with the alias: one session
 * more, which remembers what that one was granted.  *said is that session's.  Under the lock.
 */
static int take_alias(struct wish *w, struct weft_hello *said, struct weft_error *err)
{
	const struct weft_grant *g = donor_find_alias(w->donor, w->owner, w->alias);

	if (!g || g->region != w->region)
		return no_such_alias(err);
	*said = (struct weft_hello){.generation = g->generation,
		.granted = g->generation,
		.mode = g->attachment->mode,
		.epoch = w->region->epoch,
		.stripe = w->region->stripe};
	donor_copy_text(said->name, sizeof(said->name), g->attachment->name);
	memcpy(w->id_hash, g->attachment->id_hash, sizeof(w->id_hash));
	w->hello = said;
	w->mode = said->mode;
	w->generation = said->generation;
	return 0;
}

static bool is_own(const struct wish *w, const struct weft_attachment *a)
{
	if (a->region != w->region || a->anonymous != w->hello->anonymous)
		return false;
	return a->anonymous ? strcmp(a->owner, w->owner) == 0
			    : memcmp(a->id_hash, w->id_hash, sizeof(a->id_hash)) == 0;
}

static bool minds(const struct wish *w, const struct weft_attachment *a)
{
	return a->region == w->region && a != w->own && exclude_each_other(a->mode, w->mode);
}

/*
 * Shared readers stand beside any writer, but do not go on when the region becomes another part of
 * a device.
 */
static bool ends(const struct wish *w, const struct weft_attachment *a)
{
	return minds(w, a) ||
		(a->region == w->region && a != w->own &&
			donor_changes_stripe(w->region, w->hello));
}

/* Sessions of `a` below this generation have to stop first. */
static uint64_t must_stop_below(const struct wish *w, const struct weft_attachment *a)
{
	if (a == w->own)
		return w->generation;
	if (ends(w, a))
		return UINT64_MAX;
	if (a->region != w->region || w->mode == WEFT_MODE_SHARED)
		return 0;
	/*
	 * A writer's attachment that is ended by a shared reader (weft detach): writes of its older
	 * sessions may still land.
	 */
	for (const struct weft_grant *g = a->grants; g; g = g->next)
		if (g->writable)
			return a->generation;
	return 0;
}

/* Makes the attachment, or raises the generation of `own`; then w->own is set. */
static int claim(struct wish *w, struct weft_attachment *own, struct weft_error *err)
{
	const struct weft_hello *hello = w->hello;
	struct weft_generation *gen = NULL;

	if (!hello->anonymous) {
		/*
		 * No rule binds shared readers, and they take no entry from attachments that rules
		 * bind.
		 */
		gen = weft_region_generation(w->region, w->id_hash, w->mode != WEFT_MODE_SHARED);
		if (!gen && w->mode != WEFT_MODE_SHARED)
			return weft_error_set(err, EBUSY,
				"region '%s': %d attachments hold it, and more cannot",
				w->region->name, WEFT_NR_GENERATIONS);
	}
	if (!own) {
		own = donor_attachment_new(w->donor, w->region);
		if (!own)
			return weft_error_set(err, ENOMEM, "region '%s': no memory",
				w->region->name);
		own->anonymous = hello->anonymous;
		own->mode = w->mode;
		memcpy(own->id_hash, w->id_hash, sizeof(own->id_hash));
	}
	w->goes_on = own->anonymous ? own->granted
				    : own->generation >> 32 == w->generation >> 32;
	/* An attachment from before a restart belongs to the borrower whose id has that hash. */
	memcpy(own->owner, w->owner, sizeof(own->owner));
	w->own = own;
	own->nr_waiters++;
	own->last_seen_ns = weft_now_ns();
	own->lease_ms = w->donor->lease_ms;
	/* Of one from before a restart that is not known. */
	own->follows = !hello->anonymous && hello->follows;
	if (own->generation == w->generation)
		return 0;
	if (gen) {
		donor_enter(w->region, gen, hello);
		weft_region_note_lease(w->region, own->lease_ms);
	}
	own->generation = w->generation;
	own->mode = w->mode;
	own->lapsed = own->granted = false;
	donor_copy_text(own->name, sizeof(own->name), hello->name);
	return 0;
}

/* The attachment that it joins or raises, or NULL. */
static struct weft_attachment *find_own(const struct wish *w)
{
	struct weft_attachment *own = w->own ? w->own : w->donor->attachments;

	while (!w->own && own && !is_own(w, own))
		own = own->next;
	return own;
}

/*
 * Checks the rights of its key, whenever the lock was released, so that no grant outlives a right.
 */
static int check_key(struct wish *w, struct weft_error *err)
{
	struct weft_rights rights;
	int r = donor_may_have(w->donor, w->peer, w->region, w->mode, &rights, err);

	if (r < 0)
		return r;
	w->expires = rights.expires;
	w->life = rights.life;
	r = donor_check_limits(w->donor, w->peer, &rights, w->region, find_own(w),
		w->generation, err);
	weft_rights_fini(&rights);
	return r;
}

/*
 * Whether the wish may be granted at all: 0, with the attachment that it joins or raises (or NULL),
 * or the refusal.
 */
static int check(const struct wish *w, struct weft_attachment **ret_own, struct weft_error *err)
{
	const struct weft_hello *hello = w->hello;
	struct weft_attachment *own = find_own(w);
	uint64_t now_ns = weft_now_ns();

	/* Its key has become one to write with, while stock clients have it that only read. */
	if (own && own->anonymous && own->mode != w->mode && w->mode == WEFT_MODE_WRITE)
		return refuse_busy(own, now_ns, err);
	if (own && !own->anonymous) {
		/* The table may have forgotten an attachment that lapsed a moment ago. */
		if (own->generation > hello->generation ||
			(own->lapsed && own->generation == hello->generation))
			return donor_refuse_generation(w->region, hello, own->generation, err);
		if (own->generation == hello->generation && own->mode != w->mode)
			return weft_error_set(err, EINVAL,
				"region '%s': attachment '%s' joins in another mode",
				w->region->name, hello->name);
	}
	for (struct weft_attachment *a = w->donor->attachments, *next; a; a = next) {
		next = a->next;
		if (a == own || !minds(w, a))
			continue;
		donor_lapse_if_silent(a, now_ns);
		if (!a->lapsed)
			return refuse_busy(a, now_ns, err);
		if (donor_is_idle(a))
			donor_attachment_free(a);
	}
	*ret_own = own;
	return 0;
}

/*
 * Checks everything, and must be called again whenever the lock was released.  0: go ahead; 1: call
 * again; -EAGAIN: wait for sessions to stop; or the refusal.
 */
static int try_once(struct wish *w, struct weft_error *err)
{
	struct weft_donor *donor = w->donor;
	const struct weft_hello *hello = w->hello;
	bool wait = false;
	int r;

	if (donor->stopping)
		return weft_error_set(err, ESHUTDOWN, "region '%s': this donor is stopping",
			w->region->name);
	if (w->region->evicted)
		return weft_error_set(err, ENOENT, "region '%s' is not lent any more",
			w->region->name);
	r = donor_check_move(w->region, hello, w->peer, err);
	if (r < 0)
		return r;
	/* Its session may have ended meanwhile. */
	if (w->alias && !donor_find_alias(donor, w->owner, w->alias))
		return no_such_alias(err);
	struct weft_generation *gen =
		hello->anonymous ? NULL : weft_region_generation(w->region, w->id_hash, false);
	r = check_key(w, err);
	uint64_t epoch = hello->epoch ? hello->epoch : hello->expect;
	if (r == 0 && epoch && epoch != w->region->epoch)
		r = donor_check_elsewhere(donor, w->region->name, epoch, err);
	if (r == 0)
		r = donor_check_contents(w->region, hello, w->tenure_owner, err);
	/* Our own attachment is checked again: it may have been superseded meanwhile. */
	if (r == 0 && w->own)
		r = w->own->lapsed || w->own->generation > w->generation
			    ? donor_refuse_generation(w->region, hello, w->own->generation, err)
			    : 0;
	else if (r == 0 && !hello->anonymous)
		r = donor_check_generation(w->region, hello, gen, err);
	if (r == 0)
		r = donor_check_stripe(w->region, hello, err);
	if (r == 0)
		r = donor_check_copies(w->region, hello, err);
	if (r == 0 && !w->own)
		r = donor_check_grace(w->region, gen, err);
	if (r < 0)
		return r;
	if (!w->own) {
		struct weft_attachment *own = NULL;

		r = check(w, &own, err);
		if (r == 0)
			r = claim(w, own, err);
		if (r < 0)
			return r;
	}
	/* The claim keeps others out; their sessions, and our older ones, are on their way out. */
	for (struct weft_attachment *a = donor->attachments; a; a = a->next) {
		uint64_t below = must_stop_below(w, a);
		struct weft_grant *old = donor_unfenced(a, below);

		if (old) {
			donor_fence(donor, old);
			return 1;
		}
		wait |= has_grants_below(a, below);
	}
	return wait ? -EAGAIN : 0;
}

/*
 * FILE: sees to it that the mark has what the grant changes, before anybody learns of the grant.
 * 0: the mark has it; 1: it was written now, and the lock was released; -EIO.
 */
static int note_table(struct wish *w, uint64_t *noted_seq, struct weft_error *err)
{
	struct weft_generation table[WEFT_NR_GENERATIONS];
	struct weft_region *region = w->region;
	struct weft_stripe stripe = region->stripe;
	uint64_t seq = region->table_seq;
	bool kept = region->promise_path ||
		(region->backing == WEFT_BACKING_FILE && !region->read_only);

	if (!kept || seq == *noted_seq)
		return 0;
	uint32_t lease_ms = donor_longest_lease_ms(w->donor, region);
	memcpy(table, region->generations, sizeof(table));
	pthread_mutex_unlock(&w->donor->lock);
	int r = weft_region_note_table(region, table, &stripe, seq, lease_ms);
	pthread_mutex_lock(&w->donor->lock);
	*noted_seq = seq;
	if (r == -EUCLEAN)
		return weft_error_set(err, EIO,
			"region '%s': a copy was put back in its file's place while it was lent; "
			"start weft serve anew, or "
			"try again if it lends a directory",
			region->name);
	return r < 0
		? weft_error_set(err, EIO,
			  "region '%s': who may go on with its contents cannot be noted in %s: %s",
			  region->name,
			  region->promise_path ? region->promise_path : "its file's attributes",
			  strerror(-r))
		: 1;
}

/* Notes what the grant changes before the grant is made.  Returns as note_table(). */
static int note_grant(struct wish *w, uint64_t *noted_seq, struct weft_error *err)
{
	struct weft_region *region = w->region;
	struct weft_stripe stripe = region->stripe;

	if (w->mode == WEFT_MODE_WRITE) {
		w->overtaken |= donor_note_writer(region, donor_generation_of(w->own));
		donor_note_stripe(region, w->hello);
	}
	int r = note_table(w, noted_seq, err);
	if (r < 0 && !w->own->granted)
		weft_region_note_stripe(region, &stripe);
	return r;
}

/* Waits until nothing stands in the way: 0, or the refusal. */
static int clear_the_way(struct wish *w, uint64_t deadline_ns, struct weft_error *err)
{
	struct weft_donor *donor = w->donor;
	uint64_t noted_seq = 0;

	for (;;) {
		int r = try_once(w, err);

		if (r == 0)
			r = note_grant(w, &noted_seq, err);
		if (r == 1)
			continue;
		if (r != -EAGAIN)
			return r;
		if (!donor_wait_for_change(donor, deadline_ns))
			return weft_error_set(err, EBUSY,
				"region '%s': an older session did not stop within %.1f s",
				w->region->name, donor->fence_timeout_ms / 1e3);
	}
}

/* Makes the grant, whose own fields are set.  Nothing stands in the way. */
static void make(struct wish *w, struct weft_grant *grant)
{
	struct weft_attachment *own = w->own;

	w->is_news = w->hello->anonymous || own->nr_grants == 0 ||
		strcmp(own->peer.identity, grant->peer.identity) != 0 ||
		!donor_is_same_source(&own->peer, &grant->peer);
	own->nr_waiters--;
	own->granted = true;
	grant->region = weft_region_get(w->region);
	grant->writable = w->mode == WEFT_MODE_WRITE;
	grant->attachment = own;
	grant->generation = w->generation;
	grant->expires = w->expires;
	grant->peer.life = w->life;
	atomic_init(&grant->last_seen_ns, weft_now_ns());
	own->peer = grant->peer;
	grant->next = own->grants;
	own->grants = grant;
	own->nr_grants++;
	w->donor->nr_grants++;
	if (grant->writable) {
		donor_note_tenure(w->region, w->hello, w->tenure_owner);
		donor_enter_copies(w->region, w->hello);
	}
	/* Whoever it is may write without a look at the mark. */
	if (grant->writable && !w->goes_on)
		donor_raise_mark(w->region);
	grant->turn = w->region->turn;
}

/* The wish was refused. */
static void give_up(const struct wish *w)
{
	struct weft_attachment *own = w->own;

	if (!own)
		return;
	own->nr_waiters--;
	/* The attachment waited for others until now: that is not silence. */
	own->last_seen_ns = weft_now_ns();
	/* Nobody wrote under this attachment, unless it was granted before. */
	if (!own->granted)
		donor_take_back_writer(w->region, w->overtaken);
	if (own->anonymous && donor_is_idle(own))
		donor_attachment_free(own);
}

/* As weft_donor_grant(). */
static int ask_for(struct wish *w, void (*fence_fn)(void *ctx), void *ctx, struct weft_grant **ret,
	struct weft_error *err)
{
	struct weft_donor *donor = w->donor;
	struct weft_region *region = w->region;
	const struct weft_hello *hello = w->hello;
	const struct weft_peer *peer = w->peer;
	uint64_t deadline_ns = weft_now_ns() + donor->fence_timeout_ms * NS_PER_MS;
	struct weft_hello new_one;
	bool is_another = atomic_load(&region->lost) == -EUCLEAN;
	int r = weft_donor_let_in(donor, peer, err);

	if (r == 0 && (!hello->epoch || is_another))
		r = weft_region_check(region, err);
	if (r < 0)
		return r;
	donor_name_of(peer, w->owner);
	w->tenure_owner = donor_owner_of(region, peer);
	if (w->alias) {
		/* take_alias() says who it is, under the lock. */
	} else if (hello->anonymous) {
		/*
		 * Where somebody else may write, a stock client wants what it reads to stay; a host
		 * that is listed as a reader is told that it does not.
		 */
		w->mode = weft_donor_may_write(donor, peer, region) ? WEFT_MODE_WRITE
			  : region->read_only || peer->read_only    ? WEFT_MODE_SHARED
								    : WEFT_MODE_READ;
	} else {
		if (hello->mode == WEFT_MODE_WRITE && region->read_only)
			return weft_error_set(err, EROFS, "region '%s' is read-only", region->name);
		if (hello->generation == 0)
			return weft_error_set(err, EINVAL, "region '%s': generations count from 1",
				region->name);
		w->generation = hello->generation;
		donor_id_hash(region, w->owner, hello->id, w->id_hash);
	}
	struct weft_grant *grant = calloc(1, sizeof(*grant));
	if (!grant)
		return weft_error_set(err, ENOMEM, "region '%s': no memory", region->name);

	grant->fence = fence_fn;
	grant->ctx = ctx;
	grant->peer = *peer;
	grant->has_alias = hello->has_alias && !w->alias;
	grant->by_alias = w->alias;
	memcpy(grant->alias, hello->alias, sizeof(grant->alias));
	pthread_mutex_lock(&donor->lock);
	if (!hello->anonymous &&
		donor_is_new_of_version0(
			hello, weft_region_generation(region, w->id_hash, false))) {
		new_one = *hello;
		new_one.expect = hello->epoch;
		new_one.epoch = 0;
		w->hello = &new_one;
	}
	if (w->alias)
		r = take_alias(w, &new_one, err);
	if (r == 0)
		r = clear_the_way(w, deadline_ns, err);
	if (r == 0) {
		make(w, grant);
		*ret = grant; /* before fence() may be called */
	} else {
		give_up(w);
	}
	pthread_mutex_unlock(&donor->lock);
	if (r < 0)
		free(grant);
	return r;
}

int weft_donor_find_alias(struct weft_donor *donor, const struct weft_peer *peer,
	const uint8_t *alias, struct weft_region **ret, bool *ret_writable, struct weft_error *err)
{
	char owner[WEFT_KEY_NAME_MAX + 1];
	int r = weft_donor_let_in(donor, peer, err);

	if (r < 0)
		return r;
	donor_name_of(peer, owner);
	pthread_mutex_lock(&donor->lock);
	const struct weft_grant *g = donor_find_alias(donor, owner, alias);
	if (g) {
		*ret = weft_region_get(g->region);
		*ret_writable = g->writable;
	}
	pthread_mutex_unlock(&donor->lock);
	return g ? 0 : no_such_alias(err);
}

int weft_donor_grant(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hello *hello, const struct weft_peer *peer,
	void (*fence_fn)(void *ctx), void *ctx, struct weft_grant **ret, struct weft_error *err)
{
	struct wish w = {.donor = donor, .region = region, .hello = hello, .peer = peer,
		.mode = hello->mode,
		.alias = hello->anonymous && hello->has_alias ? hello->alias : NULL};
	struct weft_error why = {0};
	int r = ask_for(&w, fence_fn, ctx, ret, &why);

	/* The grant may be gone again by now. */
	if (r < 0)
		donor_audit_refusal(donor, peer, region, hello, &why);
	else if (w.is_news)
		donor_audit_grant(peer, region, hello, w.mode == WEFT_MODE_WRITE);
	weft_debug("region '%s': %s from %s over %s, generation %s: %s", region->name,
		hello->anonymous ? "a stock client" : hello->name, peer->text, peer->transport,
		weft_format_generation(hello->generation, (char[24]){0}, 24),
		r == 0 ? "granted" : why.message);
	if (r < 0 && err)
		*err = why;
	return r;
}
