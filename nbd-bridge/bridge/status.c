/* SPDX-License-Identifier: MIT */
/* A bridge's status, for people and programs.  The control thread. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/control.h"
#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies.h"
#include "nbd-bridge/lane/copies.h"

struct lane_sum {
	unsigned nr_donors;
	uint64_t requests[TP_NR_KINDS], errors, read_bytes, write_bytes, ops, posts;
	uint64_t reconnects;
	unsigned nr_ready, nr_dead;
	struct weft_error why; /* of a link that is not ready */
	uint64_t silent_ns;    /* of the link that has waited longest for its donor */
	uint64_t waiting;      /* requests that have no answer yet */
	struct weft_histogram reads, writes, flushes;
	json_t *lanes;
};

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

/* Puts the donor's name in front where there are several. */
static void set_why(struct weft_error *why, const struct bridge_link *link)
{
	const char *label = link->peer->config.label;

	if (label)
		weft_error_set(why, link->why.code, "%.120s: %.340s", label, link->why.message);
	else
		*why = link->why;
}

static void add_links(struct bridge_lane *lane, void *ctx)
{
	struct lane_sum *sum = ctx;
	bool ready = true, dead = false;

	for (unsigned i = 0; i < sum->nr_donors; i++) {
		const struct bridge_link *link = lane_link(lane, i);

		sum->reconnects += link->nr_reconnects;
		sum->ops += link->nr_ops;
		sum->posts += link->nr_posts;
		/* A copy that was left behind is waited for by nobody. */
		if (!lane_counts_donor(lane, i))
			continue;
		ready &= link->state == LINK_READY;
		dead |= link->is_dead;
		sum->silent_ns = weft_max(sum->silent_ns, link_silent_ns(link));
		if (link->state != LINK_READY && link->why.code && !sum->why.code)
			set_why(&sum->why, link);
	}
	sum->waiting += lane_nr_requests(lane);
	sum->nr_ready += ready;
	sum->nr_dead += dead;
}

static json_t *link_json(struct bridge_lane *lane, unsigned donor, uint64_t requests)
{
	const struct bridge_link *link = lane_link(lane, donor);
	char generation[24];
	json_t *json =
		json_pack("{s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "lane", (int)lane_index(lane),
			"state", link_state_name(link), "path", link->path, "generation",
			weft_format_generation(link->generation, generation, sizeof(generation)),
			"requests", integer(requests), "in_flight", integer(lane_nr_requests(lane)),
			"reconnects", integer(link->nr_reconnects), "buffer_bytes",
			integer(lane_buffer_bytes(lane)));

	json_object_set_new(json, "renewals", integer(link->nr_renewals));
	json_object_set_new(json, "last_trouble",
		link->why.code ? json_string(link->why.message) : json_null());
	return json;
}

static void add_lane(struct bridge_lane *lane, void *ctx)
{
	struct lane_sum *sum = ctx;
	const struct lane_stats *stats = lane_stats(lane);
	uint64_t requests = 0;

	for (unsigned kind = 0; kind < TP_NR_KINDS; kind++) {
		sum->requests[kind] += stats->requests[kind];
		requests += stats->requests[kind];
	}
	sum->errors += stats->errors;
	sum->read_bytes += stats->read_bytes;
	sum->write_bytes += stats->write_bytes;
	add_links(lane, ctx);
	weft_histogram_merge(&sum->reads, &stats->reads);
	weft_histogram_merge(&sum->writes, &stats->writes);
	weft_histogram_merge(&sum->flushes, &stats->flushes);
	json_t *json = link_json(lane, 0, requests);
	if (sum->nr_donors > 1) {
		json_t *links = json_array();

		for (unsigned i = 0; i < sum->nr_donors; i++)
			json_array_append_new(links, link_json(lane, i, requests));
		json_object_set_new(json, "links", links);
	}
	json_array_append_new(sum->lanes, json);
}

static json_t *latency(const struct weft_histogram *histogram)
{
	double p50 = (double)weft_histogram_quantile(histogram, 0.5) / 1e9;
	double p99 = (double)weft_histogram_quantile(histogram, 0.99) / 1e9;
	json_t *json = json_pack("{s:o, s:f}", "count", integer(histogram->total), "sum",
		(double)histogram->sum / 1e9);

	/* An empty histogram has no quantiles. */
	json_object_set_new(json, "p50", histogram->total ? json_real(p50) : json_null());
	json_object_set_new(json, "p99", histogram->total ? json_real(p99) : json_null());
	json_object_set_new(json, "max",
		histogram->total ? json_real((double)histogram->max / 1e9) : json_null());
	return json;
}

/* NULL: out of memory. */
static struct lane_sum *sum_up(struct bridge *bridge,
	void (*add)(struct bridge_lane *lane, void *ctx))
{
	struct lane_sum *sum = calloc(1, sizeof(*sum));

	if (!sum)
		return NULL;
	sum->nr_donors = bridge->attachment.nr_peers;
	sum->lanes = add == add_lane ? json_array() : NULL;
	for (unsigned i = 0; i < bridge->lanes.nr; i++)
		bridge_lane_run(bridge->lanes.lane[i], add, sum);
	attachment_stale_why(&bridge->attachment, &sum->why);
	return sum;
}

static const char *state_of(struct bridge *bridge, const struct lane_sum *sum)
{
	if (atomic_load(&bridge->attachment.stale))
		return "stale";
	if (sum->nr_ready == bridge->lanes.nr)
		return "ready";
	if (sum->nr_dead > 0)
		return "dead";
	return "reconnecting";
}

json_t *bridge_status(struct bridge *bridge)
{
	struct lane_sum *sum = sum_up(bridge, add_lane);
	struct bridge_attachment *attachment = &bridge->attachment;
	const struct tp_info *info = &attachment->info;
	static const char *const modes[] = {"read", "shared", "write"};
	char epoch[17] = "", generation[24];

	if (!sum)
		return NULL;
	if (info->has_epoch)
		snprintf(epoch, sizeof(epoch), "%016" PRIx64, info->epoch);
	json_t *donors = json_array();
	const char *transport = NULL, *region;
	for (unsigned i = 0; i < attachment->nr_peers; i++) {
		json_t *donor = peer_status(&attachment->peers[i]);
		const char *one = json_string_value(json_object_get(donor, "transport"));

		transport = !transport || strcmp(one, transport) == 0 ? one : "mixed";
		json_array_append_new(donors, donor);
	}
	region = json_string_value(json_object_get(json_array_get(donors, 0), "region"));
	json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:o, s:s?, s:s, s:s, s:s, s:s, s:f, s:o}",
		"schema", WEFT_STATUS_SCHEMA, "name", attachment->config.name, "region",
		region, "state", state_of(bridge, sum), "size_bytes",
		integer(info->size_bytes), "epoch", epoch[0] ? epoch : NULL, "generation",
		weft_format_generation(attachment_generation(attachment), generation,
			sizeof(generation)),
		"mode", modes[attachment->config.mode], "transport", transport, "offers",
		info->offers, "uptime_s", (double)(weft_now_ns() - bridge->start_ns) / 1e9,
		"donors", donors);
	json_object_set_new(json, "stripe_bytes",
		attachment->map.nr > 1 ? integer(attachment->map.unit) : json_null());
	json_object_set_new(json, "copies",
		bridge->copies ? bridge_copies_status(bridge) : json_null());
	json_object_set_new(json, "why",
		sum->why.code ? json_string(sum->why.message) : json_null());
	json_object_set_new(json, "silent_s", json_real((double)sum->silent_ns / 1e9));
	json_object_set_new(json, "waiting_requests", integer(sum->waiting));
	json_object_set_new(json, "reconnects", integer(sum->reconnects));
	json_object_set_new(json, "requests",
		json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "read", integer(sum->requests[TP_READ]),
			"write", integer(sum->requests[TP_WRITE]), "flush",
			integer(sum->requests[TP_FLUSH]), "trim", integer(sum->requests[TP_TRIM]),
			"zero", integer(sum->requests[TP_ZERO]), "cache",
			integer(sum->requests[TP_CACHE])));
	json_object_set_new(json, "errors", integer(sum->errors));
	json_object_set_new(json, "read_bytes", integer(sum->read_bytes));
	json_object_set_new(json, "written_bytes", integer(sum->write_bytes));
	json_object_set_new(json, "operations", integer(sum->ops));
	json_object_set_new(json, "posts", integer(sum->posts));
	json_object_set_new(json, "latency_s",
		json_pack("{s:o, s:o, s:o}", "read", latency(&sum->reads), "write",
			latency(&sum->writes), "flush", latency(&sum->flushes)));
	json_object_set_new(json, "cache",
		bridge->cache ? cache_status(bridge->cache) : json_null());
	json_object_set_new(json, "placing",
		bridge->place.one_node ? json_null() : place_json(&bridge->place));
	json_object_set_new(json, "lanes", sum->lanes);
	free(sum);
	return json;
}

const char *bridge_state(struct bridge *bridge, struct weft_error *why)
{
	uint64_t silent_ns;

	return bridge_state_silent(bridge, why, &silent_ns);
}

const char *bridge_state_silent(struct bridge *bridge, struct weft_error *why,
	uint64_t *ret_silent_ns)
{
	struct lane_sum *sum = sum_up(bridge, add_links);

	*ret_silent_ns = 0;
	if (!sum)
		return "out of memory";
	const char *state = state_of(bridge, sum);
	if (why)
		*why = sum->why;
	*ret_silent_ns = sum->silent_ns;
	free(sum);
	return state;
}

static void add_written(struct bridge_lane *lane, void *ctx)
{
	uint64_t *sum = ctx;

	*sum += lane_stats(lane)->write_bytes;
}

uint64_t bridge_written_bytes(struct bridge *bridge)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < bridge->lanes.nr; i++)
		bridge_lane_run(bridge->lanes.lane[i], add_written, &sum);
	return sum;
}

static void add_records(struct bridge_lane *lane, void *ctx)
{
	json_t *json = bridge_recorder_json(lane_recorder(lane));

	json_array_append_new(ctx, json);
}

json_t *bridge_explain(struct bridge *bridge)
{
	json_t *lanes = json_array();

	for (unsigned i = 0; i < bridge->lanes.nr; i++)
		bridge_lane_run(bridge->lanes.lane[i], add_records, lanes);
	return lanes;
}
