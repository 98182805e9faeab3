/*
 * What the lanes share about a donor: the generation, and the way that is taken to it.
 * Any lane's thread, under the bridge's lock, which is taken when connections come and go and never for a request.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "nbd-bridge/lane/lane.h"

static void raise_generation(struct bridge_donor *donor)
{
	atomic_fetch_add(&donor->generation, 1);
	donor->nr_ready = 0;
}

int donor_where(struct bridge_donor *donor, uint64_t generation, bool lost, uint64_t *ret_generation, unsigned *ret_way)
{
	pthread_mutex_lock(&donor->bridge->lock);
	bool wait = donor->moving;
	if (!wait) {
		if (lost && generation == donor->generation)
			raise_generation(donor);
		*ret_generation = donor->generation;
		*ret_way = donor->ways.now;
	}
	pthread_mutex_unlock(&donor->bridge->lock);
	return wait ? -EAGAIN : 0;
}

void donor_raise(struct bridge_donor *donor, uint64_t generation)
{
	pthread_mutex_lock(&donor->bridge->lock);
	if (generation == donor->generation && !donor->moving)
		raise_generation(donor);
	pthread_mutex_unlock(&donor->bridge->lock);
}

static void explain(struct bridge_donor *donor, unsigned way, const char *transport)
{
	if (way == 0)
		snprintf(donor->way_why, sizeof(donor->way_why), "auto: %s was lost: %s", tp_word_label(donor->used_transport),
			donor->left_why.code ? donor->left_why.message : "the donor was gone");
	else
		snprintf(donor->way_why, sizeof(donor->way_why), "auto: %s works again", tp_word_label(transport));
	donor->left_why.code = 0;
}

void donor_granted(struct bridge_donor *donor, uint64_t generation, unsigned way, const struct tp_info *info, bool *ret_way_changed)
{
	struct bridge *bridge = donor->bridge;
	bool newest = false;

	*ret_way_changed = false;
	pthread_mutex_lock(&bridge->lock);
	atomic_store(&donor->version0, info->version0);
	if (generation > donor->granted_generation) {
		donor->granted_generation = generation;
		newest = true;
	}
	if (generation == donor->generation) {
		donor->nr_ready++;
		*ret_way_changed = bridge_ways_granted(&donor->ways, way, weft_now_ns());
		if (*ret_way_changed)
			explain(donor, way, info->transport);
		snprintf(donor->used_transport, sizeof(donor->used_transport), "%s", info->transport);
	}
	pthread_mutex_unlock(&bridge->lock);
	if (newest)
		bridge_wake_lanes(bridge);
}

static int note(struct bridge_donor *donor, uint64_t generation, bool wrote)
{
	const struct bridge_config *config = &donor->bridge->config;

	return config->note ? config->note(config->note_ctx, donor->index, donor->info.epoch, generation, wrote) : 0;
}

uint64_t donor_noted(struct bridge_donor *donor)
{
	pthread_mutex_lock(&donor->bridge->lock);
	uint64_t noted = donor->noted_generation;
	pthread_mutex_unlock(&donor->bridge->lock);
	return noted;
}

int donor_note_granted(struct bridge_donor *donor, uint64_t generation)
{
	if (generation <= donor_noted(donor))
		return 0;
	int r = note(donor, generation, false);
	if (r < 0)
		return r;
	pthread_mutex_lock(&donor->bridge->lock);
	donor->noted_generation = weft_max(donor->noted_generation, generation);
	pthread_mutex_unlock(&donor->bridge->lock);
	return 0;
}

int donor_note_wrote(struct bridge_donor *donor, uint64_t generation)
{
	uint64_t known = atomic_load(&donor->wrote_generation);
	int r = known < generation ? note(donor, generation, true) : 0;

	/* A lane of a lower generation may come late. */
	while (r == 0 && known < generation && !atomic_compare_exchange_weak(&donor->wrote_generation, &known, generation))
		;
	return r;
}

void donor_claim(const struct bridge_donor *donor, struct weft_hello *hello)
{
	const struct bridge_donor_config *config = &donor->config;
	uint64_t granted = atomic_load(&donor->granted_generation);

	const struct bridge *bridge = donor->bridge;

	hello->version0 = atomic_load(&donor->version0);
	hello->stripe = weft_stripe_whole;
	if (bridge->map.nr > 1)
		hello->stripe = (struct weft_stripe){donor->index + 1, bridge->map.nr, bridge->map.unit};
	hello->new_contents = !donor->granted && !config->epoch && bridge->config.new_contents;
	if (!donor->granted) {
		hello->epoch = config->epoch;
		hello->expect = config->epoch ? 0 : config->expect;
		hello->granted = config->epoch ? config->granted : 0;
		hello->wrote = hello->granted && config->wrote;
		return;
	}
	hello->epoch = donor->info.epoch;
	hello->granted = donor->info.epoch ? granted : 0;
	hello->wrote = hello->granted && atomic_load(&donor->wrote_generation) == granted;
}

void donor_renew_lease(struct bridge_donor *donor, uint64_t sent_ns, uint32_t lease_ms)
{
	struct bridge *bridge = donor->bridge;
	bool leased = lease_ms > 0 && bridge->config.mode != WEFT_MODE_SHARED;
	uint64_t until_ns = leased ? sent_ns + lease_ms * UINT64_C(1000000) : UINT64_MAX, first_ns = UINT64_MAX;

	pthread_mutex_lock(&bridge->lock);
	donor->lease_until_ns = leased ? weft_max(until_ns, donor->lease_until_ns == UINT64_MAX ? 0 : donor->lease_until_ns) : UINT64_MAX;
	for (unsigned i = 0; i < bridge->nr_donors; i++)
		first_ns = weft_min(first_ns, bridge->donors[i].lease_until_ns);
	bool was_over = atomic_exchange(&bridge->fresh_until_ns, first_ns) < weft_boottime_ns();
	pthread_mutex_unlock(&bridge->lock);
	/* Some may wait for it. */
	if (was_over && bridge->cache)
		bridge_wake_lanes(bridge);
}

void donor_lost(struct bridge_donor *donor, uint64_t generation, unsigned way, const struct weft_error *why)
{
	pthread_mutex_lock(&donor->bridge->lock);
	if (generation == donor->generation) {
		if (donor->nr_ready > 0)
			donor->nr_ready--;
		if (way > 0)
			donor->left_why = *why;
	}
	pthread_mutex_unlock(&donor->bridge->lock);
}

bool donor_refused(struct bridge_donor *donor, uint64_t generation, const struct weft_error *why)
{
	bool at_once = false;

	pthread_mutex_lock(&donor->bridge->lock);
	if (donor->granted && generation != donor->generation) {
		at_once = true;
	} else if (donor->granted && !donor->moving && donor->nr_ready == 0 && bridge_ways_refused(&donor->ways)) {
		/* The donor may have granted it without our learning of it: the other way is another generation's. */
		raise_generation(donor);
		at_once = donor->ways.now == 0;
		if (at_once)
			donor->left_why = *why;
	}
	pthread_mutex_unlock(&donor->bridge->lock);
	return at_once;
}

bool donor_may_look(struct bridge_donor *donor, unsigned *ret_way, uint64_t *ret_wait_ns)
{
	uint64_t now_ns = weft_now_ns(), when_ns;

	pthread_mutex_lock(&donor->bridge->lock);
	bool may = !donor->moving && bridge_ways_may_look(&donor->ways, now_ns, &when_ns);
	if (donor->moving)
		when_ns = 0;
	*ret_way = donor->ways.better;
	pthread_mutex_unlock(&donor->bridge->lock);
	*ret_wait_ns = may || when_ns == 0 ? 0 : when_ns - weft_min(now_ns, when_ns) + 1;
	return may;
}

void donor_look_failed(struct bridge_donor *donor, const struct weft_error *why)
{
	pthread_mutex_lock(&donor->bridge->lock);
	bridge_ways_look_failed(&donor->ways, weft_now_ns());
	pthread_mutex_unlock(&donor->bridge->lock);
}

bool donor_move_begin(struct bridge_donor *donor, uint64_t generation)
{
	pthread_mutex_lock(&donor->bridge->lock);
	bool may = !donor->moving && generation == donor->generation;
	if (may)
		donor->moving = true;
	pthread_mutex_unlock(&donor->bridge->lock);
	return may;
}

void donor_move_end(struct bridge_donor *donor, bool moved, uint64_t generation, unsigned way)
{
	pthread_mutex_lock(&donor->bridge->lock);
	donor->moving = false;
	if (moved) {
		donor->generation = generation;
		donor->nr_ready = 0;
		donor->ways.now = way;
	}
	pthread_mutex_unlock(&donor->bridge->lock);
}

json_t *donor_status(struct bridge_donor *donor)
{
	const struct tp_info *info = &donor->info;
	struct bridge_way_now now;
	char epoch[17] = "", generation[24];

	if (info->has_epoch)
		snprintf(epoch, sizeof(epoch), "%016" PRIx64, info->epoch);
	bridge_way_now(donor->bridge, donor->index, &now);
	json_t *ways = json_array();
	for (unsigned i = 0; i < donor->config.nr_ways; i++) {
		const struct bridge_way *way = &donor->config.ways[i];
		const struct tp_driver *driver = tp_driver_of_ops(way->transport);

		json_array_append_new(ways, json_pack("{s:s, s:s?, s:s?}", "transport",
			driver ? driver->word : way->transport->name, "host", way->host, "port", way->port));
	}
	json_t *json = json_pack("{s:s?, s:s, s:I, s:s?, s:s, s:s, s:I, s:f, s:o}", "uri", donor->config.label, "region",
		donor->config.region, "size_bytes", (json_int_t)info->size_bytes, "epoch", epoch[0] ? epoch : NULL, "generation",
		weft_format_generation(atomic_load(&donor->generation), generation, sizeof(generation)), "transport", now.transport, "transport_changes",
		(json_int_t)now.nr_changes, "transport_since_s",
		now.since_ns ? (double)(weft_now_ns() - now.since_ns) / 1e9 : 0.0, "ways", ways);
	json_object_set_new(json, "transport_why", now.why[0] ? json_string(now.why) : json_null());
	return json;
}
