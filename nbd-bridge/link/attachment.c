/* SPDX-License-Identifier: MIT */
/* An attachment: making it from its donors, and its validity. */
#include "nbd-bridge/link/attachment.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/link/follow.h"
#include "nbd-bridge/link/peer.h"

/* A way's transport is among the attachment's from now on. */
static void add_transport(struct bridge_attachment *attachment, const struct bridge_way *way)
{
	unsigned i = 0;

	while (i < attachment->nr_transports &&
		(attachment->transports[i].transport != way->transport ||
			attachment->transports[i].transport_config != way->transport_config))
		i++;
	assert(i < BRIDGE_MAX_TRANSPORTS);
	if (i == attachment->nr_transports)
		attachment->transports[attachment->nr_transports++] = *way;
}

static void init_peer(struct bridge_attachment *attachment, unsigned index,
	const struct bridge_donor_config *config)
{
	struct bridge_peer *peer = &attachment->peers[index];

	peer->attachment = attachment;
	peer->index = index;
	peer->config = *config;
	peer->generation = config->generation;
	peer->version0 = config->version0;
	for (unsigned i = 0; i < config->nr_ways; i++)
		add_transport(attachment, &config->ways[i]);
	site_init(&peer->first, config, attachment);
	bridge_ways_init(&peer->ways, config->nr_ways, site_nr_best(&peer->first),
		config->first_way, attachment->config.return_ms);
	follow_init(peer);
}

int attachment_init(struct bridge_attachment *attachment,
	const struct bridge_attachment_config *config, const struct bridge_attachment_owner *owner,
	struct weft_error *err)
{
	struct bridge_donor_config only = {
		.region = config->region,
		.ways = {{
			.transport = config->transport,
			.transport_config = config->transport_config,
			.host = config->host,
			.port = config->port,
		}},
		.nr_ways = 1,
		.generation = config->generation,
		.epoch = config->epoch,
	};
	unsigned nr = config->nr_donors ? config->nr_donors : 1;
	unsigned copies = config->copies.nr > 1 ? config->copies.nr : 1;

	assert(nr <= BRIDGE_MAX_DONORS && nr % copies == 0);
	assert(nr == copies || config->stripe_bytes > 0);
	memcpy(only.id, config->id, sizeof(only.id));
	attachment->peers = calloc(nr, sizeof(attachment->peers[0]));
	if (!attachment->peers)
		return weft_error_set(err, ENOMEM, "cannot make a bridge: out of memory");
	pthread_mutex_init(&attachment->lock, NULL);
	attachment->config = *config;
	attachment->owner = owner;
	for (; attachment->nr_peers < nr; attachment->nr_peers++)
		init_peer(attachment, attachment->nr_peers,
			config->nr_donors ? &config->donors[attachment->nr_peers] : &only);
	attachment->config.donors = NULL; /* they are copied */
	attachment->config.region = attachment->peers[0].config.region;
	attachment->nr_copies = copies;
	attachment->map = (struct bridge_map){.nr = nr / copies, .unit = config->stripe_bytes};
	return 0;
}

void attachment_fini(struct bridge_attachment *attachment)
{
	if (!attachment->peers)
		return;
	pthread_mutex_destroy(&attachment->lock);
	for (unsigned i = 0; i < attachment->nr_peers; i++)
		site_free(attachment->peers[i].sites);
	free(attachment->peers);
	attachment->peers = NULL;
}

/* ---- its validity ---- */

void attachment_changed(const struct bridge_attachment *attachment)
{
	attachment->owner->changed((struct bridge_attachment *)attachment);
	if (attachment->config.changed)
		attachment->config.changed(attachment->config.changed_ctx);
}

/* The time until which so many of the stripe's current copies are ours. */
static uint64_t stripe_until(const struct bridge_attachment *attachment, unsigned stripe)
{
	unsigned left = attachment->config.copies.min;
	uint32_t counted = 0;
	uint64_t until_ns = 0;

	for (; left > 0; left--) {
		unsigned best = BRIDGE_MAX_DONORS;

		for (unsigned i = 0; i < attachment->nr_copies; i++) {
			unsigned at = stripe * attachment->nr_copies + i;

			if ((attachment->current & ~counted) >> at & 1 &&
				!atomic_load(&attachment->peers[at].lost_contents) &&
				(best == BRIDGE_MAX_DONORS ||
					attachment->peers[at].lease_until_ns >
						attachment->peers[best].lease_until_ns))
				best = at;
		}
		if (best == BRIDGE_MAX_DONORS)
			return 0;
		counted |= 1U << best;
		until_ns = attachment->peers[best].lease_until_ns;
	}
	return until_ns;
}

bool attachment_renew(struct bridge_attachment *attachment)
{
	uint64_t first_ns = UINT64_MAX;

	if (attachment->nr_copies > 1)
		for (unsigned i = 0; i < attachment->map.nr; i++)
			first_ns = weft_min(first_ns, stripe_until(attachment, i));
	else
		for (unsigned i = 0; i < attachment->nr_peers; i++)
			first_ns = weft_min(first_ns, attachment->peers[i].lease_until_ns);
	return atomic_exchange(&attachment->fresh_until_ns, first_ns) < weft_boottime_ns();
}

void attachment_set_current(struct bridge_attachment *attachment, uint32_t current)
{
	pthread_mutex_lock(&attachment->lock);
	attachment->current = current;
	bool was_over = attachment_renew(attachment);
	pthread_mutex_unlock(&attachment->lock);
	if (was_over)
		attachment->owner->wake_lanes(attachment);
}

void attachment_set_stale(struct bridge_attachment *attachment, const struct weft_error *why)
{
	pthread_mutex_lock(&attachment->lock);
	if (!atomic_load(&attachment->stale))
		attachment->stale_why = *why;
	atomic_store(&attachment->stale, true);
	atomic_store(&attachment->refuses, true);
	pthread_mutex_unlock(&attachment->lock);
	attachment->owner->wake_lanes(attachment);
	attachment_changed(attachment);
}

void attachment_set_superseded(struct bridge_attachment *attachment, const struct weft_error *why)
{
	pthread_mutex_lock(&attachment->lock);
	attachment->superseded = true;
	pthread_mutex_unlock(&attachment->lock);
	attachment_set_stale(attachment, why);
}

bool attachment_is_superseded(struct bridge_attachment *attachment)
{
	pthread_mutex_lock(&attachment->lock);
	bool is = attachment->superseded;
	pthread_mutex_unlock(&attachment->lock);
	return is;
}

bool attachment_stale_why(struct bridge_attachment *attachment, struct weft_error *ret)
{
	pthread_mutex_lock(&attachment->lock);
	bool stale = atomic_load(&attachment->stale);
	if (stale)
		*ret = attachment->stale_why;
	pthread_mutex_unlock(&attachment->lock);
	return stale;
}

void attachment_begin_anew(struct bridge_attachment *attachment, uint64_t generation)
{
	pthread_mutex_lock(&attachment->lock);
	/* The order meant the contents of that time. */
	attachment->config.new_contents = false;
	for (unsigned i = 0; i < attachment->nr_peers; i++) {
		struct bridge_peer *peer = &attachment->peers[i];

		/* A new incarnation remembers nothing. */
		assert(generation > atomic_load(&peer->generation));
		atomic_store(&peer->generation, generation);
		peer->granted = peer->changes_way = false;
		follow_forget(peer);
		peer->ways.now = 0;
		peer->nr_ready = 0;
		peer->config.epoch = peer->config.expect = peer->config.identity = 0;
		/* The grant will tell which contents there are. */
		attachment->owner->epoch_is(attachment, i, 0);
	}
	atomic_store(&attachment->stale, false);
	pthread_mutex_unlock(&attachment->lock);
}

/* ---- what it is ---- */

uint64_t attachment_generation(const struct bridge_attachment *attachment)
{
	return atomic_load(&attachment->peers[0].generation);
}

uint64_t attachment_bytes_cut_off(const struct bridge_attachment *attachment)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < attachment->nr_peers; i++)
		if (attachment->peers[i].info.size_bytes > attachment->map.part_bytes)
			bytes += attachment->peers[i].info.size_bytes - attachment->map.part_bytes;
	return bytes;
}
