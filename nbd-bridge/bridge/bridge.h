/* SPDX-License-Identifier: MIT */
/*
 * The bridge: a borrower's attachment to a region, or to several that are one device together,
 * striped.
 *
 * A bridge has lanes: each a thread with an event loop, a transport connection to each donor (its
 * links), registered buffers, and the front-end connections that were dealt to it.  A front-end
 * hands requests to its lane; the lane turns each into one operation or more and posts what a step
 * of its loop gathered in one go.  Lanes share nothing on that path.  What a lane offers to
 * front-ends is in lane/request.h, lane/buffers.h and lane/lane.h.
 *
 * Threads: bridge_*() belongs to the control thread (the one that made the bridge) and
 * bridge_lane_*() to the lane's thread, unless a comment says otherwise.
 *
 * When a link is lost, its requests wait while it reconnects.  What was posted and not answered is
 * posted again only after a grant at a higher generation, which implies that the donor has stopped
 * every session of the lower one.
 *
 * There may be several ways to a donor, over different transports.  An attachment takes one at a
 * time: when it is lost and connecting over it fails, all lanes go on over another, under a higher
 * generation (ways.h, scout.c).
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_BRIDGE_H
#define WEFT_NBD_BRIDGE_BRIDGE_BRIDGE_H

#include <jansson.h>

#include "nbd-bridge/cache/config.h"
#include "nbd-bridge/lane/lanes.h"

struct bridge;
struct bridge_cache;

struct bridge_config {
	struct bridge_attachment_config attach; /* where, as whom, and for how long to wait */
	struct bridge_cache_config cache;
	unsigned nr_lanes;
	/*
	 * whoever has a request runs its lane (lane/drive.h); lanes are not bound to processors
	 * then
	 */
	bool driven;
	/*
	 * 0: 30 s; how long a front-end's client may hold buffers that others wait for, or not
	 * finish its handshake
	 */
	uint32_t stall_ms;
	/*
	 * Whether whoever wants the bridge does not any more: asked a few times a second while
	 * bridge_start() waits.  NULL: it is wanted.
	 */
	bool (*given_up)(void *ctx);
	void *given_up_ctx;
};

/* Copies config.  Opens the transport and registers memory for each lane; connects nothing yet. */
int bridge_new(const struct bridge_config *config, struct bridge **ret, struct weft_error *err);
/*
 * Connects, the first lane alone, then the others; blocks until all are granted, or the first was
 * refused (the result then), or the others' connect timeout is over (they go on trying).
 */
int bridge_start(struct bridge *bridge, struct weft_error *err);
/*
 * In place of bridge_start(): as one that is stale, and was granted `infos` (one of each donor)
 * before; asks the donors nothing.  It has no cache.  *why: why it is stale.
 */
int bridge_start_stale(struct bridge *bridge, const struct tp_info *infos,
	const struct weft_error *why, struct weft_error *err);
/*
 * Waits for what is in flight, flushes, says goodbye and ends the threads; the front-ends were
 * stopped before.  All of that takes timeout_ms at most since something was written back last, but
 * a second for the FLUSH.  An error means that the FLUSH failed, or was not answered within that
 * time; it is stopped all the same.
 */
int bridge_stop(struct bridge *bridge, uint32_t timeout_ms, struct weft_error *err);
/*
 * After config.changed(): lanes follow the first donor's connection to another network card.  Cheap
 * if it has none.
 */
void bridge_place_again(struct bridge *bridge);
/*
 * Ends the threads at once: what is in flight fails, nothing is flushed, goodbyes are said.  Before
 * bridge_free(), if at all.
 */
void bridge_end_lanes(struct bridge *bridge);
/* Stopped or never started.  Takes NULL. */
void bridge_free(struct bridge *bridge);

/* What all donors can do together; constant after bridge_start().  Any thread. */
const struct tp_info *bridge_info(const struct bridge *bridge);
const struct bridge_config *bridge_config_of(const struct bridge *bridge);
/* Who it is to its donors, and what they granted. */
struct bridge_attachment *bridge_attachment(struct bridge *bridge);
/* NULL: there is none. */
struct bridge_cache *bridge_cache(struct bridge *bridge);
unsigned bridge_nr_lanes(const struct bridge *bridge);
struct bridge_lane *bridge_lane(struct bridge *bridge, unsigned i);
/* Deals lanes out in turn, those that are connected if there are any.  Any thread. */
struct bridge_lane *bridge_next_lane(struct bridge *bridge);
/*
 * Requests that may still change data, and whose senders have gone: bridge_lane_orphan().  Any
 * thread.
 */
unsigned bridge_nr_orphans(const struct bridge *bridge);
/* Whether there is a cache: FLUSH means something then whatever the donor says. */
bool bridge_is_managed(const struct bridge *bridge);
/*
 * What is in the cache and not at the donor yet; 0 without one.  It shrinks by itself, sooner after
 * bridge_push_now().
 */
uint64_t bridge_dirty_bytes(const struct bridge *bridge);
/* Of those, what its cache file has lost: they will never be at the donor.  Any thread. */
uint64_t bridge_lost_bytes(const struct bridge *bridge);
void bridge_push_now(struct bridge *bridge);

/*
 * "ready", "reconnecting", "dead", "stale" (or "out of memory"); why (may be NULL) has code 0 where
 * there is nothing to say.
 */
const char *bridge_state(struct bridge *bridge, struct weft_error *why);
/* The same, and for how long a donor has owed an answer or been away. */
const char *bridge_state_silent(struct bridge *bridge, struct weft_error *why,
	uint64_t *ret_silent_ns);

/*
 * The way back from "stale": drops the cache, dirty or not, and attaches anew with whatever
 * contents there are, under `generation`, the first of a new incarnation.  Front-ends stay;
 * requests fail until it has succeeded.  Nothing behind the front-ends may remember the old
 * contents.  granted (may be NULL) is called when the donors have granted it, before any request is
 * let in.  -EINVAL: it is not stale; -EPERM: another process has taken it over.  Otherwise it is
 * stale still, with the reason.  Takes up to twice the connect timeout.
 */
int bridge_reset(struct bridge *bridge, uint64_t generation,
	int (*granted)(void *ctx, struct weft_error *err), void *ctx, struct weft_error *err);

/* The whole state as JSON (a new reference), and the flight recorders' contents. */
json_t *bridge_status(struct bridge *bridge);
json_t *bridge_explain(struct bridge *bridge);

#endif
