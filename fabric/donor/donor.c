/*
 * The donor's sessions: who may use a region, and when they must stop.
 *
 * Threads: any; one lock, dropped while a fence() is called and while waiting.
 * Invariants: a grant is in its attachment's list until weft_grant_release(); after a generation was
 * raised no grant of a lower one is made, and none of the new one before the lower ones are gone; two
 * attachments of one region that exclude each other never have unfenced sessions at once.
 */
#include "fabric/donor/donor.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/donor/donor-private.h"
#include "fabric/base/util.h"

#define NS_PER_MS UINT64_C(1000000)
#define AWAY_NS (5000 * NS_PER_MS) /* ticks come every second */

int weft_donor_new(const struct weft_donor_config *config, struct weft_donor **ret)
{
	struct weft_donor *donor = calloc(1, sizeof(*donor));
	pthread_condattr_t attr;

	if (!donor)
		return -ENOMEM;
	pthread_mutex_init(&donor->lock, NULL);
	pthread_mutex_init(&donor->open_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&donor->changed, &attr);
	pthread_condattr_destroy(&attr);
	donor->lease_ms = config->lease_ms ? config->lease_ms : 30000;
	donor->fence_timeout_ms = config->fence_timeout_ms ? config->fence_timeout_ms : 10000;
	snprintf(donor->offers, sizeof(donor->offers), "%s", config->offers);
	donor->dir_fd = -1;
	*ret = donor;
	return 0;
}

void weft_donor_free(struct weft_donor *donor)
{
	if (!donor)
		return;
	assert(donor->nr_grants == 0);
	for (struct weft_attachment *a = donor->attachments, *next; a; a = next) {
		next = a->next;
		weft_region_put(a->region);
		free(a);
	}
	donor_regions_fini(donor);
	pthread_cond_destroy(&donor->changed);
	pthread_mutex_destroy(&donor->open_lock);
	pthread_mutex_destroy(&donor->lock);
	free(donor);
}

static void copy_text(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from ? from : "");
}

/* False once deadline_ns has passed. */
static bool wait_for_change(struct weft_donor *donor, uint64_t deadline_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / (1000 * NS_PER_MS)),
		.tv_nsec = (long)(deadline_ns % (1000 * NS_PER_MS)),
	};

	return pthread_cond_timedwait(&donor->changed, &donor->lock, &ts) != ETIMEDOUT;
}

/* The entry that says whether it holds the region; NULL for those who hold nothing. */
static struct weft_generation *generation_of(const struct weft_attachment *a)
{
	return a->anonymous || a->mode == WEFT_MODE_SHARED ? NULL : weft_region_generation(a->region, a->id_hash, false);
}

static struct weft_attachment *attachment_new(struct weft_donor *donor, struct weft_region *region)
{
	struct weft_attachment *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->donor = donor;
	a->lease_ms = donor->lease_ms;
	a->region = weft_region_get(region);
	a->next = donor->attachments;
	donor->attachments = a;
	return a;
}

/* The longest lease of those who hold the region against others. */
static uint32_t longest_lease_ms(const struct weft_donor *donor, const struct weft_region *region)
{
	uint32_t longest = 0;

	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		if (a->region == region && !a->anonymous && a->mode != WEFT_MODE_SHARED)
			longest = (uint32_t)weft_max(longest, a->lease_ms);
	return longest;
}

static void attachment_free(struct weft_attachment *a)
{
	struct weft_attachment **p = &a->donor->attachments;
	struct weft_generation *gen = generation_of(a);

	assert(a->nr_grants == 0 && a->nr_waiters == 0);
	if (gen) {
		gen->held = 0;
		a->region->table_seq++;
	}
	while (*p != a)
		p = &(*p)->next;
	*p = a->next;
	if (!a->anonymous && longest_lease_ms(a->donor, a->region) == 0)
		weft_region_forget_promises(a->region);
	/* Never the last reference: the donor's own keeps it. */
	weft_region_put(a->region);
	free(a);
}

static bool is_idle(const struct weft_attachment *a)
{
	return a->nr_grants == 0 && a->nr_waiters == 0;
}

static uint64_t silent_ns(const struct weft_attachment *a, uint64_t now_ns)
{
	uint64_t seen = a->last_seen_ns;

	for (const struct weft_grant *g = a->grants; g; g = g->next)
		seen = weft_max(seen, atomic_load_explicit(&g->last_seen_ns, memory_order_relaxed));
	return now_ns > seen ? now_ns - seen : 0;
}

static uint64_t lease_ns(const struct weft_attachment *a)
{
	return a->lease_ms * NS_PER_MS;
}

/* This process was stopped, or its machine paused: silence says nothing about the others. */
static bool was_away(const struct weft_donor *donor, uint64_t now_ns)
{
	return donor->last_tick_ns && now_ns > donor->last_tick_ns + AWAY_NS;
}

/* Takes the region away from an attachment whose lease ran out; its sessions are still to be fenced. */
static void lapse_if_silent(struct weft_attachment *a, uint64_t now_ns)
{
	struct weft_generation *gen;

	if (a->anonymous || a->lapsed || a->nr_waiters > 0 || silent_ns(a, now_ns) <= lease_ns(a) ||
		was_away(a->donor, now_ns))
		return;
	a->lapsed = true;
	gen = generation_of(a);
	if (gen) {
		gen->lapsed = WEFT_LAPSED;
		gen->held = 0;
		a->region->table_seq++;
	}
}

/* Calls fence() once, without the lock. */
static void fence(struct weft_donor *donor, struct weft_grant *grant)
{
	grant->fencing = true;
	grant->fencer = pthread_self();
	atomic_store(&grant->fenced, true);
	pthread_mutex_unlock(&donor->lock);
	grant->fence(grant->ctx);
	pthread_mutex_lock(&donor->lock);
	grant->fencing = false;
	if (grant->released)
		free(grant);
	pthread_cond_broadcast(&donor->changed);
}

/* A grant of `a` below the generation that is not fenced yet, or NULL. */
static struct weft_grant *unfenced(const struct weft_attachment *a, uint64_t below)
{
	for (struct weft_grant *g = a->grants; g; g = g->next)
		if (g->generation < below && !atomic_load(&g->fenced))
			return g;
	return NULL;
}

static bool has_grants_below(const struct weft_attachment *a, uint64_t below)
{
	for (struct weft_grant *g = a->grants; g; g = g->next)
		if (g->generation < below)
			return true;
	return false;
}

/* Shared readers mind nobody, readers mind writers, writers mind writers and readers. */
static bool exclude_each_other(enum weft_mode a, enum weft_mode b)
{
	if (a == WEFT_MODE_SHARED || b == WEFT_MODE_SHARED)
		return false;
	return a == WEFT_MODE_WRITE || b == WEFT_MODE_WRITE;
}

static int refuse_busy(const struct weft_attachment *a, uint64_t now_ns, struct weft_error *err)
{
	uint64_t silent = silent_ns(a, now_ns), lease = lease_ns(a);
	double silent_s = (double)silent / 1e9, left_s = (double)(lease > silent ? lease - silent : 0) / 1e9;
	const char *as = a->mode == WEFT_MODE_WRITE ? "writer" : "reader";

	if (a->anonymous)
		return weft_error_set(err, EBUSY, "region '%s' is in use by %u stock NBD client%s (the newest from "
			"%s); it is free once they disconnect", a->region->name, a->nr_grants,
			a->nr_grants == 1 ? "" : "s", a->peer);
	if (a->nr_grants == 0)
		return weft_error_set(err, EBUSY, "region '%s' is held by %s '%s'%s%s, which disconnected and was "
			"last heard from %.1f s ago; it is free in %.1f s, unless '%s' comes back", a->region->name,
			as, a->name, *a->peer ? " from " : "", a->peer, silent_s, left_s, a->name);
	return weft_error_set(err, EBUSY, "region '%s' is held by %s '%s' from %s, last heard from %.1f s ago; it "
		"is free once '%s' detaches, or in %.1f s if '%s' stays silent", a->region->name, as, a->name, a->peer,
		silent_s, a->name, left_s, a->name);
}

bool weft_donor_knows(struct weft_donor *donor, const struct weft_region *region, const struct weft_hello *hello)
{
	uint8_t id_hash[16];
	bool knows = false;

	if (hello->anonymous)
		return false;
	weft_region_id_hash(region, hello->id, id_hash);
	pthread_mutex_lock(&donor->lock);
	for (const struct weft_attachment *a = donor->attachments; a && !knows; a = a->next)
		knows = a->region == region && !a->anonymous && !a->lapsed &&
			memcmp(a->id_hash, id_hash, sizeof(id_hash)) == 0;
	pthread_mutex_unlock(&donor->lock);
	return knows;
}

/* What one call of weft_donor_grant() wants. */
struct wish {
	struct weft_donor *donor;
	struct weft_region *region;
	const struct weft_hello *hello;
	uint8_t id_hash[16];
	enum weft_mode mode;
	uint64_t generation;         /* 0 for the anonymous */
	struct weft_attachment *own; /* once claimed: counted in its nr_waiters */
	uint64_t overtaken;          /* entries that it changed as a writer who is about to be granted */
};

static bool is_own(const struct wish *w, const struct weft_attachment *a)
{
	if (a->region != w->region || a->anonymous != w->hello->anonymous)
		return false;
	return a->anonymous || memcmp(a->id_hash, w->id_hash, sizeof(a->id_hash)) == 0;
}

static bool minds(const struct wish *w, const struct weft_attachment *a)
{
	return a->region == w->region && a != w->own && exclude_each_other(a->mode, w->mode);
}

/* Shared readers stand beside any writer, but do not go on reading what becomes another part of a device. */
static bool ends(const struct wish *w, const struct weft_attachment *a)
{
	return minds(w, a) || (a->region == w->region && a != w->own && donor_changes_stripe(w->region, w->hello));
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
	/* A writer that is left as a shared reader (weft detach): what its older sessions sent may still land. */
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
		/* Shared readers are held to nothing, and take no place from those who are. */
		gen = weft_region_generation(w->region, w->id_hash, w->mode != WEFT_MODE_SHARED);
		if (!gen && w->mode != WEFT_MODE_SHARED)
			return weft_error_set(err, EBUSY, "region '%s': %d attachments hold it, and more cannot",
				w->region->name, WEFT_NR_GENERATIONS);
	}
	if (!own) {
		own = attachment_new(w->donor, w->region);
		if (!own)
			return weft_error_set(err, ENOMEM, "region '%s': no memory", w->region->name);
		own->anonymous = hello->anonymous;
		own->mode = w->mode;
		memcpy(own->id_hash, w->id_hash, sizeof(own->id_hash));
	}
	w->own = own;
	own->nr_waiters++;
	own->last_seen_ns = weft_now_ns();
	own->lease_ms = w->donor->lease_ms;
	if (own->generation == w->generation)
		return 0;
	if (gen) {
		donor_enter(w->region, gen, hello);
		weft_region_note_lease(w->region, own->lease_ms);
	}
	own->generation = w->generation;
	own->mode = w->mode;
	own->lapsed = own->granted = false;
	copy_text(own->name, sizeof(own->name), hello->name);
	return 0;
}

/* Whether the wish may be granted at all: 0, with the attachment that it joins or raises (or NULL), or the refusal. */
static int check(const struct wish *w, struct weft_attachment **ret_own, struct weft_error *err)
{
	const struct weft_hello *hello = w->hello;
	struct weft_attachment *own = w->donor->attachments;
	uint64_t now_ns = weft_now_ns();

	while (own && !is_own(w, own))
		own = own->next;
	if (own && !own->anonymous) {
		/* The table may have forgotten what lapsed a moment ago. */
		if (own->generation > hello->generation ||
			(own->lapsed && own->generation == hello->generation))
			return donor_refuse_generation(w->region, hello, own->generation, err);
		if (own->generation == hello->generation && own->mode != w->mode)
			return weft_error_set(err, EINVAL, "region '%s': attachment '%s' joins in another mode",
				w->region->name, hello->name);
	}
	for (struct weft_attachment *a = w->donor->attachments, *next; a; a = next) {
		next = a->next;
		if (a == own || !minds(w, a))
			continue;
		lapse_if_silent(a, now_ns);
		if (!a->lapsed)
			return refuse_busy(a, now_ns, err);
		if (is_idle(a))
			attachment_free(a);
	}
	*ret_own = own;
	return 0;
}

/*
 * Looks at everything, once more whenever the lock was open.  0: go ahead; 1: look again; -EAGAIN: wait
 * for sessions to stop; or the refusal.
 */
static int try_once(struct wish *w, struct weft_error *err)
{
	struct weft_donor *donor = w->donor;
	const struct weft_hello *hello = w->hello;
	bool wait = false;
	int r;

	if (donor->stopping)
		return weft_error_set(err, ESHUTDOWN, "region '%s': this donor is stopping", w->region->name);
	struct weft_generation *gen = hello->anonymous ? NULL : weft_region_generation(w->region, w->id_hash, false);
	r = donor_check_contents(w->region, hello, err);
	/* What is ours already is looked at again: it may have been superseded meanwhile. */
	if (r == 0 && w->own)
		r = w->own->lapsed || w->own->generation > w->generation
			    ? donor_refuse_generation(w->region, hello, w->own->generation, err)
			    : 0;
	else if (r == 0 && !hello->anonymous)
		r = donor_check_generation(w->region, hello, gen, err);
	if (r == 0)
		r = donor_check_stripe(w->region, hello, err);
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
	/* Having claimed it keeps others out; what is left of them and of our past is on its way out. */
	for (struct weft_attachment *a = donor->attachments; a; a = a->next) {
		uint64_t below = must_stop_below(w, a);
		struct weft_grant *old = unfenced(a, below);

		if (old) {
			fence(donor, old);
			return 1;
		}
		wait |= has_grants_below(a, below);
	}
	return wait ? -EAGAIN : 0;
}

/* FILE: what the grant changes is in the mark before anybody learns of it.  1: it was not, and the lock was open; 0: it is; -EIO. */
static int note_table(struct wish *w, uint64_t *noted_seq, struct weft_error *err)
{
	struct weft_generation table[WEFT_NR_GENERATIONS];
	struct weft_region *region = w->region;
	struct weft_stripe stripe = region->stripe;
	uint64_t seq = region->table_seq;
	bool kept = region->promise_path || (region->backing == WEFT_BACKING_FILE && !region->read_only);

	if (!kept || seq == *noted_seq)
		return 0;
	uint32_t lease_ms = longest_lease_ms(w->donor, region);
	memcpy(table, region->generations, sizeof(table));
	pthread_mutex_unlock(&w->donor->lock);
	int r = weft_region_note_table(region, table, &stripe, seq, lease_ms);
	pthread_mutex_lock(&w->donor->lock);
	*noted_seq = seq;
	if (r == -EUCLEAN)
		return weft_error_set(err, EIO, "region '%s': a copy was put back in its file's place while it was lent; start weft serve anew, or "
			"try again if it lends a directory", region->name);
	return r < 0 ? weft_error_set(err, EIO, "region '%s': who may go on with its contents cannot be noted in %s: %s", region->name,
		region->promise_path ? region->promise_path : "its file's attributes", strerror(-r)) : 1;
}

int weft_donor_grant(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hello *hello, const char *peer, const char *transport,
	void (*fence_fn)(void *ctx), void *ctx, struct weft_grant **ret, struct weft_error *err)
{
	struct wish w = {.donor = donor, .region = region, .hello = hello, .mode = hello->mode};
	uint64_t deadline_ns = weft_now_ns() + donor->fence_timeout_ms * NS_PER_MS, noted_seq = 0;
	struct weft_hello new_one;
	bool is_another = atomic_load(&region->lost) == -EUCLEAN;
	int r = hello->epoch && !is_another ? 0 : weft_region_check(region, err);

	if (r < 0)
		return r;
	if (hello->anonymous) {
		w.mode = region->read_only ? WEFT_MODE_SHARED : WEFT_MODE_WRITE;
	} else {
		if (hello->mode == WEFT_MODE_WRITE && region->read_only)
			return weft_error_set(err, EROFS, "region '%s' is read-only", region->name);
		if (hello->generation == 0)
			return weft_error_set(err, EINVAL, "region '%s': generations count from 1", region->name);
		w.generation = hello->generation;
		weft_region_id_hash(region, hello->id, w.id_hash);
	}
	struct weft_grant *grant = calloc(1, sizeof(*grant));
	if (!grant)
		return weft_error_set(err, ENOMEM, "region '%s': no memory", region->name);

	pthread_mutex_lock(&donor->lock);
	if (!hello->anonymous && donor_is_new_of_version0(hello, weft_region_generation(region, w.id_hash, false))) {
		new_one = *hello;
		new_one.expect = hello->epoch;
		new_one.epoch = 0;
		hello = w.hello = &new_one;
	}
	for (;;) {
		r = try_once(&w, err);
		if (r == 0) {
			struct weft_stripe stripe = region->stripe;

			if (w.mode == WEFT_MODE_WRITE) {
				w.overtaken |= donor_note_writer(region, generation_of(w.own));
				donor_note_stripe(region, hello);
			}
			r = note_table(&w, &noted_seq, err);
			if (r < 0 && !w.own->granted)
				weft_region_note_stripe(region, &stripe);
		}
		if (r == 0)
			break;
		if (r == 1)
			continue;
		if (r != -EAGAIN)
			goto refuse;
		if (!wait_for_change(donor, deadline_ns)) {
			r = weft_error_set(err, EBUSY, "region '%s': an older session did not stop within %.1f s",
				region->name, donor->fence_timeout_ms / 1e3);
			goto refuse;
		}
	}
	struct weft_attachment *own = w.own;
	own->nr_waiters--;
	own->granted = true;
	grant->region = weft_region_get(region);
	grant->writable = w.mode == WEFT_MODE_WRITE;
	grant->attachment = own;
	grant->fence = fence_fn;
	grant->ctx = ctx;
	grant->generation = w.generation;
	atomic_init(&grant->last_seen_ns, weft_now_ns());
	copy_text(grant->peer, sizeof(grant->peer), peer);
	copy_text(grant->transport, sizeof(grant->transport), transport);
	copy_text(own->peer, sizeof(own->peer), peer);
	copy_text(own->transport, sizeof(own->transport), transport);
	grant->next = own->grants;
	own->grants = grant;
	own->nr_grants++;
	donor->nr_grants++;
	/* Who remembers nothing may change what those know who come back by the tenure. */
	if (grant->writable && !(hello->anonymous ? hello->tenure : hello->epoch))
		weft_region_note_tenure(region, weft_random_name());
	*ret = grant;
	pthread_mutex_unlock(&donor->lock);
	return 0;
refuse:
	if (w.own) {
		w.own->nr_waiters--;
		/* It waited for others until now: that is not silence. */
		w.own->last_seen_ns = weft_now_ns();
		/* Nobody wrote, unless a sister of it may. */
		if (!w.own->granted)
			donor_take_back_writer(region, w.overtaken);
		if (w.own->anonymous && is_idle(w.own))
			attachment_free(w.own);
	}
	pthread_mutex_unlock(&donor->lock);
	free(grant);
	return r;
}

void weft_grant_release(struct weft_grant *grant, bool clean)
{
	struct weft_attachment *a = grant->attachment;
	struct weft_donor *donor = a->donor;
	struct weft_region *region = grant->region;
	struct weft_grant **p = &a->grants;
	bool own_fence;

	pthread_mutex_lock(&donor->lock);
	own_fence = grant->fencing && pthread_equal(grant->fencer, pthread_self());
	while (grant->fencing && !own_fence)
		pthread_cond_wait(&donor->changed, &donor->lock);
	while (*p != grant)
		p = &(*p)->next;
	*p = grant->next;
	a->nr_grants--;
	donor->nr_grants--;
	a->last_seen_ns = weft_max(a->last_seen_ns, atomic_load(&grant->last_seen_ns));
	if (is_idle(a) && (a->anonymous || a->lapsed || (clean && grant->generation == a->generation)))
		attachment_free(a);
	if (own_fence)
		grant->released = true;
	else
		free(grant);
	pthread_cond_broadcast(&donor->changed);
	pthread_mutex_unlock(&donor->lock);
	weft_region_put(region);
}

void weft_donor_tick(struct weft_donor *donor, uint64_t now_ns)
{
	struct weft_attachment *a, *next;

	pthread_mutex_lock(&donor->lock);
	if (was_away(donor, now_ns))
		for (a = donor->attachments; a; a = a->next)
			a->last_seen_ns = now_ns;
	donor->last_tick_ns = now_ns;
	for (a = donor->attachments; a; a = next) {
		next = a->next;
		lapse_if_silent(a, now_ns);
		if (a->lapsed && is_idle(a))
			attachment_free(a);
	}
	for (a = donor->attachments; a;) {
		struct weft_grant *g = a->lapsed ? unfenced(a, UINT64_MAX) : NULL;

		if (g)
			fence(donor, g);
		/* The lock was open meanwhile: start again. */
		a = g ? donor->attachments : a->next;
	}
	pthread_mutex_unlock(&donor->lock);
}

void weft_donor_stop(struct weft_donor *donor)
{
	pthread_mutex_lock(&donor->lock);
	donor->stopping = true;
	pthread_cond_broadcast(&donor->changed);
	pthread_mutex_unlock(&donor->lock);
}

int weft_donor_fence_all(struct weft_donor *donor, uint32_t timeout_ms)
{
	uint64_t deadline_ns = weft_now_ns() + timeout_ms * NS_PER_MS;
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	for (struct weft_attachment *a = donor->attachments; a;) {
		struct weft_grant *g = unfenced(a, UINT64_MAX);

		if (g)
			fence(donor, g);
		a = g ? donor->attachments : a->next;
	}
	while (donor->nr_grants > 0 && r == 0)
		if (!wait_for_change(donor, deadline_ns))
			r = donor->nr_grants > 0 ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&donor->lock);
	return r;
}

void weft_donor_welcome(struct weft_donor *donor, const struct weft_region *region,
	struct weft_welcome *ret)
{
	*ret = (struct weft_welcome){
		.epoch = region->epoch,
		.lease_ms = donor->lease_ms,
		.restorable = region->backing == WEFT_BACKING_FILE && !region->read_only,
	};
	pthread_mutex_lock(&donor->lock);
	copy_text(ret->offers, sizeof(ret->offers), donor->offers);
	pthread_mutex_unlock(&donor->lock);
}

uint64_t weft_donor_tenure(struct weft_donor *donor, const struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	uint64_t tenure = region->tenure;
	pthread_mutex_unlock(&donor->lock);
	return tenure;
}

void weft_donor_offer(struct weft_donor *donor, const char *offers)
{
	pthread_mutex_lock(&donor->lock);
	copy_text(donor->offers, sizeof(donor->offers), offers);
	pthread_mutex_unlock(&donor->lock);
}

void weft_donor_status(struct weft_donor *donor,
	void (*fn)(void *ctx, const struct weft_attachment_status *status), void *ctx)
{
	uint64_t now_ns = weft_now_ns();

	pthread_mutex_lock(&donor->lock);
	for (struct weft_attachment *a = donor->attachments; a; a = a->next) {
		uint64_t silent = silent_ns(a, now_ns), lease = lease_ns(a);
		struct weft_attachment_status status = {
			.region = a->region->name,
			.name = a->anonymous ? "(stock NBD clients)" : a->name,
			.mode = a->mode,
			.generation = a->generation,
			.nr_sessions = a->nr_grants,
			.peer = a->nr_grants ? a->peer : "",
			.transport = a->nr_grants ? a->transport : "",
			.silent_ms = silent / NS_PER_MS,
			.lease_left_ms = a->anonymous    ? UINT64_MAX
					 : lease > silent ? (lease - silent) / NS_PER_MS
							  : 0,
		};

		fn(ctx, &status);
	}
	pthread_mutex_unlock(&donor->lock);
}

bool donor_region_in_use(const struct weft_donor *donor, const struct weft_region *region)
{
	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		if (a->region == region)
			return true;
	return false;
}

void donor_drop_attachments(struct weft_donor *donor, struct weft_region *region)
{
	for (struct weft_attachment **p = &donor->attachments, *a; (a = *p);) {
		if (a->region != region) {
			p = &a->next;
			continue;
		}
		*p = a->next;
		weft_region_put(region);
		free(a);
	}
}

int donor_restore_attachments(struct weft_donor *donor, struct weft_region *region)
{
	if (region->crashed)
		donor_lose_contents(region);
	/* In the header too: memory may be taken over before that is over. */
	weft_region_note_lease(region, region->promised_lease_ms);
	donor_begin_grace(region);
	if (region->crashed)
		return 0;
	if (region->forgets) /* whoever held it had our lease, as far as can be known */
		region->grace_until_ns = weft_now_ns() + donor->lease_ms * NS_PER_MS;
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		struct weft_generation *gen = &region->generations[i];
		uint32_t held = gen->held;

		/* Whoever has to be waited for is noted as long as that lasts. */
		if (gen->lapsed == WEFT_LEFT_WRITTEN && region->grace_until_ns)
			continue;
		if (gen->generation == 0 || held == 0 || held > 1 + WEFT_MODE_WRITE ||
			gen->lapsed != WEFT_NOT_LAPSED) {
			gen->held = 0;
			continue;
		}
		struct weft_attachment *a = attachment_new(donor, region);
		if (!a) {
			donor_drop_attachments(donor, region);
			return -ENOMEM;
		}
		memcpy(a->id_hash, gen->id_hash, sizeof(a->id_hash));
		a->generation = gen->generation;
		a->mode = (enum weft_mode)(held - 1);
		a->lease_ms = (uint32_t)weft_max(donor->lease_ms, region->promised_lease_ms);
		gen->name[sizeof(gen->name) - 1] = '\0';
		copy_text(a->name, sizeof(a->name), gen->name[0] ? gen->name : "(of before the donor's restart)");
		a->last_seen_ns = weft_now_ns();
	}
	return 0;
}
