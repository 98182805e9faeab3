/* SPDX-License-Identifier: MIT */
/* See site.h.  No state; any thread. */
#include "nbd-bridge/link/site.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"

/* -1: it has none. */
static int transport_of(const struct bridge_attachment *attachment, const struct tp_ops *ops,
	const void *config)
{
	for (unsigned i = 0; i < attachment->nr_transports; i++)
		if (attachment->transports[i].transport == ops &&
			attachment->transports[i].transport_config == config)
			return (int)i;
	return -1;
}

int site_base_transport(const struct bridge_attachment *attachment)
{
	const struct tp_driver *base = tp_base_driver();

	return base ? transport_of(attachment, base->ops, NULL) : -1;
}

void site_init(struct bridge_site *site, const struct bridge_donor_config *config,
	const struct bridge_attachment *attachment)
{
	*site = (struct bridge_site){.region = config->region,
		.pass_host = config->pass_host,
		.pass_port = config->pass_port,
		.nr_ways = config->nr_ways};
	for (unsigned i = 0; i < config->nr_ways; i++) {
		const struct bridge_way *way = &config->ways[i];
		int transport =
			transport_of(attachment, way->transport, way->transport_config);

		assert(transport >= 0);
		site->ways[i] = *way;
		site->transports[i] = (uint8_t)transport;
	}
}

unsigned site_nr_best(const struct bridge_site *site)
{
	unsigned nr = 0;

	while (nr + 1 < site->nr_ways && site->ways[nr + 1].transport == site->ways[1].transport)
		nr++;
	return nr;
}

bool site_is_same(const struct bridge_site *a, const struct bridge_site *b)
{
	return a == b || (a->uri[0] && strcmp(a->uri, b->uri) == 0);
}

struct adding {
	const struct bridge_attachment *attachment;
	struct bridge_site *site;
	uint32_t answer_ms;
};

static void add_better(void *ctx, const struct tp_driver *driver, const char *host,
	const char *port)
{
	const struct adding *adding = ctx;
	struct bridge_site *site = adding->site;
	const unsigned i = site->nr_ways;
	int transport = transport_of(adding->attachment, driver->ops, NULL);

	for (unsigned j = 1; j < i; j++)
		if (site->ways[j].transport == driver->ops &&
			strcmp(site->ways[j].host, host) == 0)
			return;
	if (transport < 0 || i == BRIDGE_MAX_WAYS)
		return;
	struct tp_offer *offer = &site->offered[i];
	/* What no offer names is the host of the URI. */
	if (host != site->parsed.host)
		snprintf(offer->address, sizeof(offer->address), "%s", host);
	snprintf(offer->port, sizeof(offer->port), "%s", port);
	site->ways[i] = (struct bridge_way){.transport = driver->ops,
		.host = offer->address[0] ? offer->address : site->parsed.host,
		.port = offer->port,
		.answer_ms = adding->answer_ms};
	site->transports[i] = (uint8_t)transport;
	site->nr_ways++;
}

struct bridge_site *site_new(const struct bridge_attachment *attachment, const char *uri,
	const char *offers, uint32_t better_answer_ms)
{
	struct bridge_site *site = calloc(1, sizeof(*site));
	struct adding adding = {attachment, site, better_answer_ms};
	struct weft_error why = {0};
	int base = site_base_transport(attachment);

	if (!site || base < 0 || weft_uri_parse(uri, &site->parsed, &why) < 0) {
		weft_debug("cannot follow a region to %s: %s", uri,
			why.code ? why.message : "there is no transport, or no memory");
		free(site);
		return NULL;
	}
	snprintf(site->uri, sizeof(site->uri), "%s", uri);
	snprintf(site->offers, sizeof(site->offers), "%s", offers);
	site->region = site->parsed.region;
	site->pass_host = site->parsed.host;
	site->pass_port = site->parsed.port;
	site->ways[0] = (struct bridge_way){.transport = tp_base_driver()->ops,
		.host = site->parsed.host,
		.port = site->parsed.port};
	site->transports[0] = (uint8_t)base;
	site->nr_ways = 1;
	for (const struct tp_driver *const *at = tp_drivers; *at && !(*at)->ask; at++)
		if ((*at)->ops && (*at)->parse_offer)
			tp_each_offered(*at, site->offers, site->parsed.host, add_better,
				&adding);
	return site;
}

void site_free(struct bridge_site *sites)
{
	while (sites) {
		struct bridge_site *site = sites;

		sites = site->next;
		weft_uri_fini(&site->parsed);
		free(site);
	}
}
