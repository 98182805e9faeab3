/* SPDX-License-Identifier: MIT */
/*
 * Which ways lead to a donor, and which of them a bridge begins with.  A donor is asked what it
 * offers, over the fallback (TCP); the transports before that in tp_drivers[] (RDMA) are tried if
 * they are among it.  With both, the bridge goes on over the fallback when the better one is lost,
 * and returns; a fall back is never silent.
 *
 *	struct bridge_find find = {.choice = uri.transport, .donors[0].uri = &uri};
 *	struct bridge_donor_config donor = {.id = …, .generation = …};
 *	struct bridge_config config = {.attach.nr_donors = 1, …};
 *	struct bridge *bridge = NULL;
 *	int r = bridge_find_and_start(&find, &config, &donor, &bridge, &err);
 *	…
 *	bridge_find_end(&bridge);
 *
 * Threads: the control thread's (bridge.h).  Everything here blocks, and allocates.
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_FIND_H
#define WEFT_NBD_BRIDGE_BRIDGE_FIND_H

#include "fabric/driver.h"
#include "fabric/uri.h"
#include "nbd-bridge/bridge/bridge.h"

/* A donor, and where its ways lead. */
struct bridge_found {
	/* Set by the caller. */
	const struct weft_uri *uri; /* borrowed as long as the struct is used */
	const char *label; /* the donor's in bridge_donor_config, borrowed; NULL: there is one */
	/* Filled. */
	char offers[64]; /* "tcp,rdma:10809"; "": it was not asked, or said nothing */
	char hosts[BRIDGE_MAX_WAYS][256], ports[BRIDGE_MAX_WAYS][8];
};

/*
 * Stays in place while a bridge lives that was started with it: the bridge borrows the hosts and
 * ports of its ways.
 */
struct bridge_find {
	/* Set by the caller; the rest is zero. */
	const struct tp_driver *choice; /* the one transport to take; NULL: whichever is best */
	struct bridge_found donors[BRIDGE_MAX_DONORS];
	/* Filled. */
	char why[BRIDGE_WHY_MAX]; /* it began over this one: "auto: the donor offers tcp" */
};

/*
 * Finds the ways to one donor: asks it what it offers, for 5 s at most; nothing is granted.  Fills
 * found, and of *config region, label, ways, nr_ways, expect and version0.  no_better (may not be
 * NULL): why this machine can use no transport but the fallback, or code 0; untouched if that was
 * not looked for.  0; or -EOPNOTSUPP: the URI's kind of donor has no such transport.
 */
int bridge_find_ways(struct bridge_found *found, const struct tp_driver *choice,
	struct bridge_donor_config *config, struct weft_error *no_better, struct weft_error *err);

/*
 * Finds the ways to all donors; then makes a bridge and starts it, over the best way that works.
 * config: with nr_donors; donors: as many, with id, generation and what is remembered; the rest is
 * filled.  *bridge: NULL, or a bridge that is ended first.  0; or why the last try failed, as
 * bridge_new() and bridge_start() say it, and what they left, if anything, is in *bridge: end it.
 * Says why it took the transport in find->why.
 */
int bridge_find_and_start(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, struct bridge **bridge, struct weft_error *err);

/* The same for an attachment that is stale: see bridge_start_stale(). */
int bridge_find_and_start_stale(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, const struct tp_info *infos,
	const struct weft_error *why, struct bridge **bridge, struct weft_error *err);

/*
 * Ends and frees *bridge, which may be NULL or not have started: gives back at once what it was
 * granted.  *bridge is NULL then.
 */
void bridge_find_end(struct bridge **bridge);

#endif
