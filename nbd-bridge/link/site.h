/* SPDX-License-Identifier: MIT */
/*
 * A region at a donor, and the ways to it.  An attachment begins at one such site; when its region
 * moves, it goes on at another.  Constant once made: any thread.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_SITE_H
#define WEFT_NBD_BRIDGE_LINK_SITE_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/driver.h"
#include "fabric/uri.h"
#include "nbd-bridge/link/attachment.h"

struct bridge_site {
	struct bridge_site *next;     /* the owner's */
	char uri[WEFT_PLACE_MAX];     /* "": as the attachment was told at its begin */
	const char *region, *pass_host, *pass_port; /* as in bridge_donor_config */
	struct bridge_way ways[BRIDGE_MAX_WAYS]; /* the first is the fallback */
	uint8_t transports[BRIDGE_MAX_WAYS]; /* of each way: in attachment.transports */
	unsigned nr_ways;
	/* What the above points into, unless that was borrowed. */
	char offers[64];
	struct weft_uri parsed;
	struct tp_offer offered[BRIDGE_MAX_WAYS];
};

/* Fills a site from a config, whose strings it borrows. */
void site_init(struct bridge_site *site, const struct bridge_donor_config *config,
	const struct bridge_attachment *attachment);
/*
 * Makes a site of a place that a donor named.  Its ways are over transports that the attachment
 * has: the base transport, and those of the offers ("": none), which are better.  NULL: it cannot
 * be reached, which is logged.  The caller frees it by site_free().
 */
struct bridge_site *site_new(const struct bridge_attachment *attachment, const char *uri,
	const char *offers, uint32_t better_answer_ms);
/* Frees a list of them.  Takes NULL. */
void site_free(struct bridge_site *sites);

/* How many of its ways, from the second on, are of the transport that is preferred. */
unsigned site_nr_best(const struct bridge_site *site);
/* Whether both are the same region at the same donor. */
bool site_is_same(const struct bridge_site *a, const struct bridge_site *b);
/* The number of the base transport in attachment.transports; -1: it has none. */
int site_base_transport(const struct bridge_attachment *attachment);

#endif
