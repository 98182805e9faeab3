/* SPDX-License-Identifier: MIT */
/*
 * The bridge: a borrower's attachment to a region, or to several regions that together are one
 * striped device.
 *
 * A bridge has lanes.  Each lane is a thread with an event loop, a transport connection to each
 * donor (its links), registered buffers, and the front-end connections that were dealt to it.  A
 * front-end hands requests to its lane.  The lane turns each request into one or more operations,
 * and posts all operations of a step of its loop at once.  Lanes share nothing on that path.
 * lane/request.h, lane/buffers.h and lane/lane.h have the calls for front-ends.
 *
 * Threads: bridge_*() belongs to the control thread (the one that made the bridge) and
 * bridge_lane_*() to the lane's thread, unless a comment says otherwise.
 *
 * When a link is lost, its requests wait while it reconnects.  Operations that were posted and not
 * answered are posted again only after a grant at a higher generation.  Such a grant implies that
 * the donor has stopped every session of the lower one.
 *
 * There may be several ways to a donor, over different transports.  An attachment takes one way at
 * a time.  When that way is lost and connecting over it fails, all lanes go on over another, under
 * a higher generation (ways.h, scout.c).
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
	 * the thread that has a request runs the lane (lane/drive.h), and lanes are not bound to
	 * processors
	 */
	bool driven;
	/*
	 * how long a front-end's client may hold buffers that others wait for, or take for its
	 * handshake; 0: 30 s
	 */
	uint32_t stall_ms;
	/*
	 * Whether nobody wants the bridge any more.  Asked a few times a second while
	 * bridge_start() waits.  NULL: never.
	 */
	bool (*given_up)(void *ctx);
	void *given_up_ctx;
};

/* Copies config.  Opens the transport and registers memory for each lane; connects nothing yet. */
int bridge_new(const struct bridge_config *config, struct bridge **ret, struct weft_error *err);
/*
 * Connects the first lane alone, then the others.  Blocks until all are granted, or the first is
 * refused (then that is the result), or the others' connect timeout is over (they go on trying).
 */
int bridge_start(struct bridge *bridge, struct weft_error *err);
/*
 * In place of bridge_start(): starts a bridge that is stale, and that was granted `infos` (one of
 * each donor) before.  Asks the donors nothing.  Such a bridge has no cache.  *why: why it is
 * stale.
 */
int bridge_start_stale(struct bridge *bridge, const struct tp_info *infos,
	const struct weft_error *why, struct weft_error *err);
/*
 * Waits for what is in flight, flushes, says goodbye and ends the threads; the front-ends were
 * stopped before.  All of that ends within timeout_ms after something was written back last, but
 * the FLUSH has at least a second.  An error means that the FLUSH failed, or was not answered in
 * that time; the bridge is stopped all the same.
 */
int bridge_stop(struct bridge *bridge, uint32_t timeout_ms, struct weft_error *err);
/*
 * After config.changed(): lanes follow the first donor's connection to another network card.  Cheap
 * if the card is the same.
 */
void bridge_place_again(struct bridge *bridge);
/*
 * Ends the threads at once: requests in flight fail, nothing is flushed, goodbyes are said.  If
 * called, then before bridge_free().
 */
void bridge_end_lanes(struct bridge *bridge);
/* Stopped or never started.  Takes NULL. */
void bridge_free(struct bridge *bridge);

/* What all donors together can do; constant after bridge_start().  Any thread. */
const struct tp_info *bridge_info(const struct bridge *bridge);
const struct bridge_config *bridge_config_of(const struct bridge *bridge);
/* Who the bridge is to its donors, and what they granted. */
struct bridge_attachment *bridge_attachment(struct bridge *bridge);
/* NULL: there is none. */
struct bridge_cache *bridge_cache(struct bridge *bridge);
unsigned bridge_nr_lanes(const struct bridge *bridge);
struct bridge_lane *bridge_lane(struct bridge *bridge, unsigned i);
/* Deals lanes out in turn: connected ones, if there are any.  Any thread. */
struct bridge_lane *bridge_next_lane(struct bridge *bridge);
/*
 * The number of requests that may still change data and whose senders have gone:
 * bridge_lane_orphan().  Any thread.
 */
unsigned bridge_nr_orphans(const struct bridge *bridge);
/* Whether there is a cache whose bytes lie in a file on disk. */
bool bridge_cache_is_on_disk(const struct bridge *bridge);
/* Whether there is a cache: then FLUSH has an effect, whatever the donor says. */
bool bridge_is_managed(const struct bridge *bridge);
/*
 * Bytes that are in the cache and not at the donor yet; 0 without a cache.  The number shrinks by
 * itself, sooner after bridge_push_now().
 */
uint64_t bridge_dirty_bytes(const struct bridge *bridge);
/* Those of them that the cache file has lost: they will never be at the donor.  Any thread. */
uint64_t bridge_lost_bytes(const struct bridge *bridge);
void bridge_push_now(struct bridge *bridge);

/* Bytes that clients wrote, and that were answered. */
uint64_t bridge_written_bytes(struct bridge *bridge);
/*
 * "ready", "reconnecting", "dead", "stale" (or "out of memory").  why (may be NULL) gets the
 * reason, or code 0 if there is none.
 */
const char *bridge_state(struct bridge *bridge, struct weft_error *why);
/* The same, with the time for which a donor has owed an answer or been away. */
const char *bridge_state_silent(struct bridge *bridge, struct weft_error *why,
	uint64_t *ret_silent_ns);

/*
 * The way back from "stale": drops the cache, dirty or not, and attaches anew with whatever
 * contents there are, under `generation`, the first of a new incarnation.  Front-ends stay;
 * requests fail until it has succeeded.  No user of a front-end may remember the old contents.
 * granted (may be NULL) is called after the donors' grants and before any request is let in.
 * -EINVAL: the bridge is not stale; -EPERM: another process has taken the attachment over.  After
 * any other error the bridge is still stale, with that reason.  Takes up to twice the connect
 * timeout.
 */
int bridge_reset(struct bridge *bridge, uint64_t generation,
	int (*granted)(void *ctx, struct weft_error *err), void *ctx, struct weft_error *err);

/* The whole state as JSON (a new reference), and the flight recorders' contents. */
json_t *bridge_status(struct bridge *bridge);
json_t *bridge_explain(struct bridge *bridge);

#endif
