/* SPDX-License-Identifier: MIT */
/*
 * Which ways lead to a donor, and which of them a bridge begins with.  A donor is asked over the
 * fallback (TCP) what it offers.  The transports before the fallback in tp_drivers[] (RDMA) are
 * tried if the donor offers them.  A bridge that has both goes on over the fallback when the better
 * one is lost, and returns later; falling back is never silent.
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
	struct weft_held_key *key; /* by bridge_find_keys(); NULL: none is used */
	char offers[64]; /* "tcp,rdma:10809"; "": the donor was not asked, or said nothing */
	/* what no_better of bridge_find_ways() is about, if it has a code */
	const struct tp_driver *tried;
	char hosts[BRIDGE_MAX_WAYS][256], ports[BRIDGE_MAX_WAYS][8];
};

/*
 * Must stay in place while a bridge that was started with it lives: the bridge borrows the hosts
 * and ports of its ways.
 */
struct bridge_find {
	/* Set by the caller; the rest is zero. */
	const struct tp_driver *choice; /* the one transport to take; NULL: whichever is best */
	const char *key_file; /* see weft_uri_key() */
	bool allow_insecure;  /* the same */
	struct bridge_found donors[BRIDGE_MAX_DONORS];
	/* Filled. */
	/* why it began over this transport: "auto: the donor offers tcp" */
	char why[BRIDGE_WHY_MAX];
};

/* The keys of all donors: as weft_uri_key(), for each.  bridge_find_fini() after success. */
int bridge_find_keys(struct bridge_find *find, unsigned nr_donors, struct weft_error *err);
/* Wipes them; no bridge lives that was started with it.  Takes one that is all zero. */
void bridge_find_fini(struct bridge_find *find);

/*
 * Finds the ways to one donor: asks the donor what it offers, for 5 s at most; nothing is granted.
 * Fills found, and of *config region, label, ways, nr_ways, expect and version0.  no_better (not
 * NULL) gets the reason why this machine can use no transport but the fallback, or code 0; it is
 * untouched if that was not looked for.  0; or -EOPNOTSUPP: the URI's kind of donor has no such
 * transport.
 */
int bridge_find_ways(struct bridge_found *found, const struct tp_driver *choice,
	struct bridge_donor_config *config, struct weft_error *no_better, struct weft_error *err);

/*
 * The same, without asking: the way that needs no answer, over the choice, or the fallback.  Of the
 * donor's kind is not made sure.
 */
void bridge_find_first_way(struct bridge_found *found, const struct tp_driver *choice,
	struct bridge_donor_config *config);

/*
 * Finds the ways to all donors; then makes a bridge and starts it, over the best way that works.
 * The caller sets nr_donors in config, and in that many donors the id, the generation and what is
 * remembered; the rest is filled here.  *bridge: NULL, or a bridge that is ended first.  0; or the
 * error of the last try, from bridge_new() or bridge_start(): then *bridge may hold what they left,
 * and has to be ended.  find->why says why this transport was taken.
 */
int bridge_find_and_start(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, struct bridge **bridge, struct weft_error *err);

/* The same for an attachment that is stale: see bridge_start_stale(). */
int bridge_find_and_start_stale(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, const struct tp_info *infos,
	const struct weft_error *why, struct bridge **bridge, struct weft_error *err);

/*
 * Ends and frees *bridge, which may be NULL or not have started, and gives back at once what it was
 * granted.  *bridge becomes NULL.
 */
void bridge_find_end(struct bridge **bridge);

#endif
