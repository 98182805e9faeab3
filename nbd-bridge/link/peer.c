/* SPDX-License-Identifier: MIT */
/*
 * The state of a donor that lanes share: the generation, and the way to it.  Any lane's thread,
 * under the attachment's lock, which is taken when connections come and go and never for a request.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/key/held.h"
#include "nbd-bridge/link/follow.h"
#include "nbd-bridge/link/peer.h"

static void raise_generation(struct bridge_peer *peer)
{
	atomic_fetch_add(&peer->generation, 1);
	peer->nr_ready = 0;
}

int peer_where(struct bridge_peer *peer, uint64_t generation, bool lost, uint64_t *ret_generation,
	const struct bridge_site **ret_site, unsigned *ret_way)
{
	pthread_mutex_lock(&peer->attachment->lock);
	bool wait = peer->changes_way;
	if (!wait) {
		if (lost && generation == peer->generation) {
			raise_generation(peer);
			peer->asks_place = peer->place;
		}
		*ret_generation = peer->generation;
		*ret_site = peer->asks_place ? peer->place : peer->home;
		*ret_way = peer->asks_place ? 0 : peer->ways.now;
	}
	pthread_mutex_unlock(&peer->attachment->lock);
	return wait ? -EAGAIN : 0;
}

void peer_raise(struct bridge_peer *peer, uint64_t generation)
{
	pthread_mutex_lock(&peer->attachment->lock);
	if (generation == peer->generation && !peer->changes_way)
		raise_generation(peer);
	pthread_mutex_unlock(&peer->attachment->lock);
}

/* was_lost: of the way that was in use. */
static void explain(struct bridge_peer *peer, bool was_lost, const char *transport)
{
	if (was_lost)
		snprintf(peer->way_why, sizeof(peer->way_why), "auto: %s was lost: %s",
			tp_word_label(peer->used_transport),
			peer->left_why.code ? peer->left_why.message : "the donor was gone");
	else
		snprintf(peer->way_why, sizeof(peer->way_why), "auto: %s works again",
			tp_word_label(transport));
	peer->left_why.code = 0;
}

void peer_granted(struct bridge_peer *peer, uint64_t generation, unsigned way,
	const struct tp_info *info, bool *ret_way_changed)
{
	struct bridge_attachment *attachment = peer->attachment;
	bool newest = false;

	*ret_way_changed = false;
	pthread_mutex_lock(&attachment->lock);
	atomic_store(&peer->version0, info->version0);
	if (generation > peer->granted_generation) {
		peer->granted_generation = generation;
		newest = true;
	}
	if (generation == peer->generation) {
		const bool was_lost = bridge_ways_is_worse(&peer->ways, way, peer->ways.used);

		peer->nr_ready++;
		*ret_way_changed = bridge_ways_granted(&peer->ways, way, weft_now_ns());
		if (*ret_way_changed)
			explain(peer, was_lost, info->transport);
		snprintf(peer->used_transport, sizeof(peer->used_transport), "%s", info->transport);
	}
	pthread_mutex_unlock(&attachment->lock);
	if (newest)
		attachment->owner->wake_lanes(attachment);
}

void peer_renewed(struct bridge_peer *peer, const struct tp_info *info)
{
	pthread_mutex_lock(&peer->attachment->lock);
	snprintf(peer->used_transport, sizeof(peer->used_transport), "%s", info->transport);
	pthread_mutex_unlock(&peer->attachment->lock);
}

static int note(struct bridge_peer *peer, uint64_t generation, bool wrote)
{
	const struct bridge_attachment_config *config = &peer->attachment->config;

	return config->note
		? config->note(config->note_ctx, peer->index, peer->info.epoch, generation, wrote)
		: 0;
}

uint64_t peer_noted(struct bridge_peer *peer)
{
	pthread_mutex_lock(&peer->attachment->lock);
	uint64_t noted = peer->noted_generation;
	pthread_mutex_unlock(&peer->attachment->lock);
	return noted;
}

int peer_note_granted(struct bridge_peer *peer, uint64_t generation)
{
	if (generation <= peer_noted(peer))
		return 0;
	int r = note(peer, generation, false);
	if (r < 0)
		return r;
	pthread_mutex_lock(&peer->attachment->lock);
	peer->noted_generation = weft_max(peer->noted_generation, generation);
	pthread_mutex_unlock(&peer->attachment->lock);
	return 0;
}

int peer_note_wrote(struct bridge_peer *peer, uint64_t generation)
{
	uint64_t known = atomic_load(&peer->wrote_generation);
	int r = known < generation ? note(peer, generation, true) : 0;

	/* A lane of a lower generation may come late. */
	while (r == 0 && known < generation &&
		!atomic_compare_exchange_weak(&peer->wrote_generation, &known, generation))
		;
	return r;
}

static void claim(const struct bridge_peer *peer, struct weft_hello *hello)
{
	const struct bridge_attachment *attachment = peer->attachment;
	const struct bridge_donor_config *config = &peer->config;
	uint64_t granted = atomic_load(&peer->granted_generation);

	hello->version0 = atomic_load(&peer->version0);
	hello->follows = peer->follows;
	hello->stripe = weft_stripe_whole;
	hello->copies = attachment->nr_copies > 1;
	if (attachment->map.nr > 1)
		hello->stripe = (struct weft_stripe){peer->index / attachment->nr_copies + 1,
			attachment->map.nr, attachment->map.unit};
	/* The order meant the contents that a donor had at the beginning. */
	hello->new_contents = !peer->granted && !config->epoch &&
		attachment->config.new_contents && !(hello->copies && attachment->granted);
	if (!peer->granted) {
		hello->epoch = config->epoch;
		hello->expect = config->epoch ? 0 : config->expect;
		hello->granted = config->epoch ? config->granted : 0;
		hello->wrote = hello->granted && config->wrote;
		return;
	}
	hello->epoch = peer->info.epoch;
	hello->granted = peer->info.epoch ? granted : 0;
	hello->wrote = hello->granted && atomic_load(&peer->wrote_generation) == granted;
}

/* A copy may be granted to another lane, or begin anew, at any time: so there is the lock. */
void peer_claim(const struct bridge_peer *peer, struct weft_hello *hello)
{
	pthread_mutex_lock(&peer->attachment->lock);
	claim(peer, hello);
	pthread_mutex_unlock(&peer->attachment->lock);
}

bool peer_is_granted(const struct bridge_peer *peer)
{
	pthread_mutex_lock(&peer->attachment->lock);
	const bool granted = peer->granted;
	pthread_mutex_unlock(&peer->attachment->lock);
	return granted;
}

void peer_give_alias(struct bridge_peer *peer, struct weft_hello *hello)
{
	hello->has_alias = true;
	weft_random(hello->alias, sizeof(hello->alias));
	pthread_mutex_lock(&peer->attachment->lock);
	memcpy(peer->alias, hello->alias, sizeof(peer->alias));
	peer->alias_generation = hello->generation;
	pthread_mutex_unlock(&peer->attachment->lock);
}

uint64_t peer_alias(struct bridge_peer *peer, uint8_t *ret)
{
	pthread_mutex_lock(&peer->attachment->lock);
	uint64_t generation = peer->alias_generation;
	if (generation != atomic_load(&peer->granted_generation) ||
		generation != atomic_load(&peer->generation) || peer->nr_ready == 0)
		generation = 0;
	memcpy(ret, peer->alias, sizeof(peer->alias));
	pthread_mutex_unlock(&peer->attachment->lock);
	return generation;
}

void peer_renew_lease(struct bridge_peer *peer, uint64_t sent_ns, uint32_t lease_ms)
{
	struct bridge_attachment *attachment = peer->attachment;
	bool leased = lease_ms > 0 && attachment->config.mode != WEFT_MODE_SHARED;
	uint64_t until_ns = leased ? sent_ns + lease_ms * UINT64_C(1000000) : UINT64_MAX;

	pthread_mutex_lock(&attachment->lock);
	peer->lease_until_ns = leased
		? weft_max(until_ns, peer->lease_until_ns == UINT64_MAX ? 0 : peer->lease_until_ns)
		: UINT64_MAX;
	bool was_over = attachment_renew(attachment);
	pthread_mutex_unlock(&attachment->lock);
	/* Requests may wait for the lease. */
	if (was_over)
		attachment->owner->wake_lanes(attachment);
}

void peer_set_stale(struct bridge_peer *peer, const struct weft_error *why)
{
	struct bridge_attachment *attachment = peer->attachment;

	if (attachment->nr_copies <= 1) {
		attachment_set_stale(attachment, why);
		return;
	}
	pthread_mutex_lock(&attachment->lock);
	if (!atomic_exchange(&peer->lost_contents, true))
		peer->left_why = *why;
	attachment_renew(attachment);
	pthread_mutex_unlock(&attachment->lock);
	attachment_changed(attachment);
}

const char *peer_uri(struct bridge_peer *peer)
{
	pthread_mutex_lock(&peer->attachment->lock);
	const char *uri = peer->home->uri[0] ? peer->home->uri : peer->config.label;
	pthread_mutex_unlock(&peer->attachment->lock);
	return uri;
}

bool peer_reaches(struct bridge_peer *peer, const char *uri)
{
	pthread_mutex_lock(&peer->attachment->lock);
	const bool reaches = follow_reaches(peer, uri);
	pthread_mutex_unlock(&peer->attachment->lock);
	return reaches;
}

void peer_begin_anew(struct bridge_peer *peer, const char *uri)
{
	struct bridge_attachment *attachment = peer->attachment;

	pthread_mutex_lock(&attachment->lock);
	raise_generation(peer);
	peer->granted = peer->changes_way = false;
	follow_forget(peer);
	if (uri)
		follow_replace(peer, uri);
	peer->ways.now = 0;
	peer->lease_until_ns = 0;
	peer->config.epoch = peer->config.expect = peer->config.identity = 0;
	atomic_store(&peer->lost_contents, false);
	pthread_mutex_unlock(&attachment->lock);
}

void peer_lost(struct bridge_peer *peer, const struct bridge_site *site, uint64_t generation,
	unsigned way, const struct weft_error *why)
{
	pthread_mutex_lock(&peer->attachment->lock);
	if (generation == peer->generation && site == peer->home) {
		if (peer->nr_ready > 0)
			peer->nr_ready--;
		if (way > 0)
			peer->left_why = *why;
	}
	pthread_mutex_unlock(&peer->attachment->lock);
}

bool peer_refused(struct bridge_peer *peer, uint64_t generation, const struct weft_error *why)
{
	bool at_once = false;

	pthread_mutex_lock(&peer->attachment->lock);
	if (peer->granted && generation != peer->generation) {
		at_once = true;
	} else if (peer->granted && !peer->changes_way && peer->nr_ready == 0 &&
		bridge_ways_refused(&peer->ways)) {
		/*
		 * The donor may have granted this generation without our learning of it, so the
		 * other way needs another generation.
		 */
		raise_generation(peer);
		at_once = peer->ways.now == 0;
		if (at_once)
			peer->left_why = *why;
	}
	pthread_mutex_unlock(&peer->attachment->lock);
	return at_once;
}

bool peer_may_look(struct bridge_peer *peer, unsigned *ret_way, uint64_t *ret_wait_ns)
{
	uint64_t now_ns = weft_now_ns(), when_ns;

	pthread_mutex_lock(&peer->attachment->lock);
	bool may = !peer->changes_way && bridge_ways_may_look(&peer->ways, now_ns, &when_ns);
	if (peer->changes_way)
		when_ns = 0;
	*ret_way = peer->ways.better;
	pthread_mutex_unlock(&peer->attachment->lock);
	*ret_wait_ns = may || when_ns == 0 ? 0 : when_ns - weft_min(now_ns, when_ns) + 1;
	return may;
}

void peer_look_failed(struct bridge_peer *peer, const struct weft_error *why)
{
	pthread_mutex_lock(&peer->attachment->lock);
	bridge_ways_look_failed(&peer->ways, weft_now_ns());
	pthread_mutex_unlock(&peer->attachment->lock);
}

bool peer_move_begin(struct bridge_peer *peer, const struct bridge_site *site,
	uint64_t generation)
{
	pthread_mutex_lock(&peer->attachment->lock);
	bool may = !peer->changes_way && generation == peer->generation && site == peer->home;
	if (may)
		peer->changes_way = true;
	pthread_mutex_unlock(&peer->attachment->lock);
	return may;
}

bool peer_move_end(struct bridge_peer *peer, bool moved, const struct bridge_site *site,
	uint64_t generation, unsigned way)
{
	pthread_mutex_lock(&peer->attachment->lock);
	peer->changes_way = false;
	moved = moved && site == peer->home;
	if (moved) {
		peer->generation = generation;
		peer->nr_ready = 0;
		peer->ways.now = way;
	}
	pthread_mutex_unlock(&peer->attachment->lock);
	return moved;
}

void peer_way_now(struct bridge_peer *peer, struct bridge_way_now *ret)
{
	pthread_mutex_lock(&peer->attachment->lock);
	snprintf(ret->transport, sizeof(ret->transport), "%s", peer->used_transport);
	snprintf(ret->why, sizeof(ret->why), "%s", peer->way_why);
	ret->nr_changes = peer->ways.nr_changes;
	ret->since_ns = peer->ways.since_ns;
	pthread_mutex_unlock(&peer->attachment->lock);
}

static json_t *key_json(struct weft_held_key *key)
{
	char identity[WEFT_IDENTITY_MAX + 1];

	return key ? json_pack("{s:s, s:s}", "identity", weft_held_key_identity(key, identity),
			     "file", weft_held_key_file(key))
		   : json_null();
}

json_t *peer_status(struct bridge_peer *peer)
{
	const struct tp_info *info = &peer->info;
	struct bridge_way_now now;
	char epoch[17] = "", generation[24];

	if (info->has_epoch)
		snprintf(epoch, sizeof(epoch), "%016" PRIx64, info->epoch);
	peer_way_now(peer, &now);
	pthread_mutex_lock(&peer->attachment->lock);
	const struct bridge_site *home = peer->home, *place = peer->place;
	pthread_mutex_unlock(&peer->attachment->lock);
	json_t *ways = json_array();
	for (unsigned i = 0; i < home->nr_ways; i++) {
		const struct bridge_way *way = &home->ways[i];
		const struct tp_driver *driver = tp_driver_of_ops(way->transport);

		json_array_append_new(ways,
			json_pack("{s:s, s:s?, s:s?}", "transport",
				driver ? driver->word : way->transport->name, "host", way->host,
				"port", way->port));
	}
	json_t *json = json_pack("{s:s?, s:s, s:I, s:s?, s:s, s:s, s:I, s:f, s:o}", "uri",
		home->uri[0] ? home->uri : peer->config.label, "region", home->region, "size_bytes",
		(json_int_t)info->size_bytes, "epoch", epoch[0] ? epoch : NULL, "generation",
		weft_format_generation(atomic_load(&peer->generation), generation,
			sizeof(generation)),
		"transport", now.transport, "transport_changes", (json_int_t)now.nr_changes,
		"transport_since_s",
		now.since_ns ? (double)(weft_now_ns() - now.since_ns) / 1e9 : 0.0, "ways", ways);
	json_object_set_new(json, "transport_why", now.why[0] ? json_string(now.why) : json_null());
	json_object_set_new(json, "moving_to", place ? json_string(place->uri) : json_null());
	json_object_set_new(json, "restorable", json_boolean(info->restorable));
	json_object_set_new(json, "key", key_json(peer->config.key));
	return json;
}
