/* SPDX-License-Identifier: MIT */
/*
 * Attachments and their sessions: since when they are silent, when they lose their region, when
 * their sessions must stop.  grants.c decides what is granted.
 *
 * Threads: any; the donor's lock is dropped while a fence() is called and while waiting.
 * Invariant: a grant is in its attachment's list until weft_grant_release().
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fabric/donor/donor-private.h"
#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/key/key.h"

#define AWAY_NS (5000 * NS_PER_MS) /* ticks come every second */

bool donor_wait_for_change(struct weft_donor *donor, uint64_t deadline_ns)
{
	return weft_cond_wait_until(&donor->changed, &donor->lock, deadline_ns);
}

struct weft_generation *donor_generation_of(const struct weft_attachment *a)
{
	return a->anonymous || a->mode == WEFT_MODE_SHARED
		? NULL
		: weft_region_generation(a->region, a->id_hash, false);
}

struct weft_attachment *donor_attachment_new(struct weft_donor *donor, struct weft_region *region)
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

uint32_t donor_longest_lease_ms(const struct weft_donor *donor, const struct weft_region *region)
{
	uint32_t longest = 0;

	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		if (a->region == region && !a->anonymous && a->mode != WEFT_MODE_SHARED)
			longest = (uint32_t)weft_max(longest, a->lease_ms);
	return longest;
}

void donor_attachment_free(struct weft_attachment *a)
{
	struct weft_attachment **p = &a->donor->attachments;
	struct weft_generation *gen = donor_generation_of(a);

	assert(a->nr_grants == 0 && a->nr_waiters == 0);
	if (gen) {
		gen->held = 0;
		a->region->table_seq++;
	}
	while (*p != a)
		p = &(*p)->next;
	*p = a->next;
	if (!a->anonymous && donor_longest_lease_ms(a->donor, a->region) == 0)
		weft_region_forget_promises(a->region);
	/* This is never the last reference: the donor has its own. */
	weft_region_put(a->region);
	free(a);
}

uint64_t donor_silent_ns(const struct weft_attachment *a, uint64_t now_ns)
{
	uint64_t seen = a->last_seen_ns;

	for (const struct weft_grant *g = a->grants; g; g = g->next)
		seen = weft_max(seen, atomic_load_explicit(&g->last_seen_ns, memory_order_relaxed));
	return now_ns > seen ? now_ns - seen : 0;
}

/*
 * Whether this process was stopped, or its machine paused: then silence says nothing about
 * borrowers.
 */
static bool was_away(const struct weft_donor *donor, uint64_t now_ns)
{
	return donor->last_tick_ns && now_ns > donor->last_tick_ns + AWAY_NS;
}

void donor_lapse_if_silent(struct weft_attachment *a, uint64_t now_ns)
{
	struct weft_generation *gen;

	if (a->anonymous || a->lapsed || a->nr_waiters > 0 ||
		donor_silent_ns(a, now_ns) <= donor_lease_ns(a) || was_away(a->donor, now_ns))
		return;
	weft_debug("region '%s': the lease of '%s' is over", a->region->name, a->name);
	a->lapsed = true;
	gen = donor_generation_of(a);
	if (gen) {
		gen->lapsed = WEFT_LAPSED;
		gen->held = 0;
		a->region->table_seq++;
	}
}

void donor_fence(struct weft_donor *donor, struct weft_grant *grant)
{
	grant->fencing = true;
	grant->fencer = pthread_self();
	atomic_store(&grant->fenced, true);
	pthread_mutex_unlock(&donor->lock);
	weft_debug("region '%s': fencing %s, generation %s", grant->region->name, grant->peer.text,
		weft_format_generation(grant->generation, (char[24]){0}, 24));
	grant->fence(grant->ctx);
	pthread_mutex_lock(&donor->lock);
	grant->fencing = false;
	if (grant->released)
		free(grant);
	pthread_cond_broadcast(&donor->changed);
}

struct weft_grant *donor_unfenced(const struct weft_attachment *a, uint64_t below)
{
	for (struct weft_grant *g = a->grants; g; g = g->next)
		if (g->generation < below && !atomic_load(&g->fenced))
			return g;
	return NULL;
}

static struct weft_grant *unseen_writer(const struct weft_donor *donor,
	const struct weft_region *region)
{
	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		if (a->region == region && a->mode == WEFT_MODE_WRITE)
			for (struct weft_grant *g = a->grants; g; g = g->next)
				if (g->peer.one_sided && !atomic_load(&g->fenced))
					return g;
	return NULL;
}

void donor_fence_unseen_writers(struct weft_donor *donor, const struct weft_region *region)
{
	struct weft_grant *g;

	while ((g = unseen_writer(donor, region)) != NULL)
		donor_fence(donor, g);
}

struct weft_grant *donor_find_alias(const struct weft_donor *donor, const char *owner,
	const uint8_t *alias)
{
	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		for (struct weft_grant *g = a->lapsed ? NULL : a->grants; g; g = g->next)
			if (g->has_alias && g->generation == a->generation &&
				!atomic_load(&g->fenced) && strcmp(a->owner, owner) == 0 &&
				weft_secret_equal(g->alias, alias, WEFT_ID_BYTES))
				return g;
	return NULL;
}

static struct weft_grant *by_alias_of(const struct weft_grant *session)
{
	for (struct weft_grant *g = session->attachment->grants; g; g = g->next)
		if (g->by_alias && memcmp(g->alias, session->alias, WEFT_ID_BYTES) == 0)
			return g;
	return NULL;
}

/*
 * The session says goodbye for its attachment: nobody who came by its alias may go on.  The
 * session's grant is still in the list.  The lock is held, and released meanwhile.
 */
static void end_alias(struct weft_grant *session)
{
	struct weft_donor *donor = session->attachment->donor;
	uint64_t deadline_ns = weft_now_ns() + donor->fence_timeout_ms * NS_PER_MS;
	struct weft_grant *g;

	session->has_alias = false;
	while ((g = by_alias_of(session)) != NULL) {
		if (!atomic_load(&g->fenced))
			donor_fence(donor, g);
		else if (!donor_wait_for_change(donor, deadline_ns))
			return;
	}
}

void weft_grant_release(struct weft_grant *grant, bool clean)
{
	struct weft_attachment *a = grant->attachment;
	struct weft_donor *donor = a->donor;
	struct weft_region *region = grant->region;
	struct weft_grant **p = &a->grants;
	bool own_fence;

	weft_debug("region '%s': %s has ended%s", region->name, grant->peer.text,
		clean ? "" : ", not cleanly");
	pthread_mutex_lock(&donor->lock);
	own_fence = grant->fencing && pthread_equal(grant->fencer, pthread_self());
	while (grant->fencing && !own_fence)
		pthread_cond_wait(&donor->changed, &donor->lock);
	if (grant->has_alias && clean)
		end_alias(grant);
	/* Who came by an alias does not speak for the attachment. */
	bool ends = clean && !grant->by_alias && grant->generation == a->generation;
	while (*p != grant)
		p = &(*p)->next;
	*p = grant->next;
	a->nr_grants--;
	donor->nr_grants--;
	a->last_seen_ns = weft_max(a->last_seen_ns, atomic_load(&grant->last_seen_ns));
	if (donor_is_idle(a) &&
		(a->anonymous || a->lapsed || ends))
		donor_attachment_free(a);
	if (own_fence)
		grant->released = true;
	else
		free(grant);
	pthread_cond_broadcast(&donor->changed);
	pthread_mutex_unlock(&donor->lock);
	weft_region_put(region);
}

bool weft_donor_knows(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region, const struct weft_hello *hello)
{
	char owner[WEFT_KEY_NAME_MAX + 1];
	uint8_t id_hash[16];
	bool knows = false;

	if (hello->anonymous)
		return false;
	donor_name_of(peer, owner);
	donor_id_hash(region, owner, hello->id, id_hash);
	pthread_mutex_lock(&donor->lock);
	for (const struct weft_attachment *a = donor->attachments; a && !knows; a = a->next)
		knows = a->region == region && !a->anonymous && !a->lapsed &&
			memcmp(a->id_hash, id_hash, sizeof(id_hash)) == 0;
	pthread_mutex_unlock(&donor->lock);
	return knows;
}

/* Whether the session may go on.  Under the lock. */
static bool may_stay(const struct weft_donor *donor, struct weft_grant *grant,
	struct weft_error *err)
{
	struct weft_rights rights;
	enum weft_mode mode = grant->writable ? WEFT_MODE_WRITE : WEFT_MODE_SHARED;
	int r = donor_may_have(donor, &grant->peer, grant->region, mode, &rights, err);

	if (r < 0)
		return r == -ENOMEM;
	grant->expires = rights.expires;
	weft_rights_fini(&rights);
	return true;
}

void weft_grant_moved(struct weft_grant *grant, const struct sockaddr_storage *address,
	const char *text)
{
	struct weft_donor *donor = grant->attachment->donor;
	struct weft_peer *newest = &grant->attachment->peer;

	pthread_mutex_lock(&donor->lock);
	if (strcmp(newest->text, grant->peer.text) == 0) {
		newest->address = *address;
		donor_copy_text(newest->text, sizeof(newest->text), text);
	}
	grant->peer.address = *address;
	donor_copy_text(grant->peer.text, sizeof(grant->peer.text), text);
	pthread_mutex_unlock(&donor->lock);
}

static bool has_expired(const struct weft_grant *grant, int64_t now_s)
{
	return grant->expires && now_s >= grant->expires;
}

/* The lock is held, and released meanwhile. */
static void fence_out(struct weft_donor *donor, struct weft_grant *grant,
	const struct weft_error *why)
{
	struct weft_region *region = weft_region_get(grant->region);
	struct weft_peer peer = grant->peer;

	donor_fence(donor, grant);
	pthread_mutex_unlock(&donor->lock);
	donor_audit_end(&peer, region->name, why->message);
	pthread_mutex_lock(&donor->lock);
	/* Never the last reference: the donor's own keeps it. */
	weft_region_put(region);
}

/*
 * Fences the sessions under a key that may not go on.  Their regions stay held for a lease: until
 * then the borrower may answer from memory.  The lock is held, and released meanwhile.
 */
static void fence_those_out(struct weft_donor *donor, bool keys_changed)
{
	int64_t now_s = time(NULL);
	uint64_t look = ++donor->looks;

	for (struct weft_attachment *a = donor->attachments; a;) {
		struct weft_grant *out = NULL;
		struct weft_error why;

		for (struct weft_grant *g = a->owner[0] ? a->grants : NULL; g && !out;
			g = g->next) {
			if (g->look == look || atomic_load(&g->fenced))
				continue;
			g->look = look;
			if (has_expired(g, now_s))
				weft_error_set(&why, EACCES, "its %s has expired",
					g->peer.certified ? "certificate" : "key");
			else if (!keys_changed || may_stay(donor, g, &why))
				continue;
			out = g;
		}
		if (out)
			fence_out(donor, out, &why);
		/* The lock was open meanwhile: start again. */
		a = out ? donor->attachments : a->next;
	}
}

void weft_donor_keys_changed(struct weft_donor *donor)
{
	pthread_mutex_lock(&donor->lock);
	fence_those_out(donor, true);
	pthread_mutex_unlock(&donor->lock);
}

void donor_attachments_tick(struct weft_donor *donor, uint64_t now_ns)
{
	struct weft_attachment *a, *next;

	if (was_away(donor, now_ns))
		for (a = donor->attachments; a; a = a->next)
			a->last_seen_ns = now_ns;
	donor->last_tick_ns = now_ns;
	for (a = donor->attachments; a; a = next) {
		next = a->next;
		donor_lapse_if_silent(a, now_ns);
		if (a->lapsed && donor_is_idle(a))
			donor_attachment_free(a);
	}
	for (a = donor->attachments; a;) {
		struct weft_grant *g = a->lapsed ? donor_unfenced(a, UINT64_MAX) : NULL;

		if (g)
			donor_fence(donor, g);
		/* The lock was open meanwhile: start again. */
		a = g ? donor->attachments : a->next;
	}
	fence_those_out(donor, false);
	donor_passes_expire(donor, now_ns);
}

static bool has_fenced_grants(const struct weft_donor *donor)
{
	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		for (const struct weft_grant *g = a->grants; g; g = g->next)
			if (atomic_load(&g->fenced))
				return true;
	return false;
}

int weft_donor_fence_all(struct weft_donor *donor, uint32_t timeout_ms)
{
	uint64_t deadline_ns = weft_now_ns() + timeout_ms * NS_PER_MS;
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	for (struct weft_attachment *a = donor->attachments; a;) {
		struct weft_grant *g = donor_unfenced(a, UINT64_MAX);

		if (g)
			donor_fence(donor, g);
		a = g ? donor->attachments : a->next;
	}
	while (has_fenced_grants(donor) && r == 0)
		if (!donor_wait_for_change(donor, deadline_ns))
			r = has_fenced_grants(donor) ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&donor->lock);
	return r;
}

void weft_donor_status(struct weft_donor *donor,
	void (*fn)(void *ctx, const struct weft_attachment_status *status), void *ctx)
{
	uint64_t now_ns = weft_now_ns();

	pthread_mutex_lock(&donor->lock);
	for (struct weft_attachment *a = donor->attachments; a; a = a->next) {
		uint64_t silent = donor_silent_ns(a, now_ns), lease = donor_lease_ns(a);
		struct weft_attachment_status status = {
			.region = a->region->name,
			.name = !a->anonymous       ? a->name
				: donor_host_of(a) ? donor_host_of(a)
						   : "(stock NBD clients)",
			.mode = a->mode,
			.generation = a->generation,
			.nr_sessions = a->nr_grants,
			.identity = a->nr_grants         ? a->peer.identity
				: donor_host_of(a) ? ""
						   : a->owner,
			.peer = a->nr_grants ? a->peer.text : "",
			.transport = a->nr_grants ? a->peer.transport : "",
			.encrypted = a->nr_grants && a->peer.encrypted,
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

bool donor_is_being_used(const struct weft_donor *donor, const struct weft_region *region)
{
	for (const struct weft_attachment *a = donor->attachments; a; a = a->next)
		if (a->region == region && !donor_is_idle(a))
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
	/* The header gets it too: the memory may be taken over before that lease is over. */
	weft_region_note_lease(region, region->promised_lease_ms);
	donor_begin_grace(region);
	if (region->crashed)
		return 0;
	if (region->forgets) /* as far as can be known, its holder had our lease */
		region->grace_until_ns = weft_now_ns() + donor->lease_ms * NS_PER_MS;
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		struct weft_generation *gen = &region->generations[i];
		uint32_t held = gen->held;

		/* An attachment that others have to wait for stays noted as long as the wait. */
		if (gen->lapsed == WEFT_LEFT_WRITTEN && region->grace_until_ns)
			continue;
		if (gen->generation == 0 || held == 0 || held > 1 + WEFT_MODE_WRITE ||
			gen->lapsed != WEFT_NOT_LAPSED) {
			gen->held = 0;
			continue;
		}
		struct weft_attachment *a = donor_attachment_new(donor, region);
		if (!a) {
			donor_drop_attachments(donor, region);
			return -ENOMEM;
		}
		memcpy(a->id_hash, gen->id_hash, sizeof(a->id_hash));
		a->generation = gen->generation;
		a->mode = (enum weft_mode)(held - 1);
		a->lease_ms = (uint32_t)weft_max(donor->lease_ms, region->promised_lease_ms);
		gen->name[sizeof(gen->name) - 1] = '\0';
		donor_copy_text(a->name, sizeof(a->name),
			gen->name[0] ? gen->name : "(of before the donor's restart)");
		a->last_seen_ns = weft_now_ns();
	}
	return 0;
}
