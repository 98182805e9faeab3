/*
 * The bridge: a borrower's attachment to a region, or to several that are one device together, striped.
 *
 * A bridge has lanes: each a thread with an event loop, a transport connection to each donor (its
 * links), registered buffers, and the front-end connections that were dealt to it.  A front-end hands
 * requests to its lane; the lane turns each into one operation or more and posts what a step of its loop
 * gathered in one go.  Lanes share nothing on that path.
 *
 * Threads: bridge_*() belongs to the control thread (the one that made the bridge) and
 * bridge_lane_*() to the lane's thread, unless a comment says otherwise.
 *
 * When a link is lost, its requests wait while it reconnects.  What was posted and not answered is
 * posted again only after a grant at a higher generation, which implies that the donor has stopped
 * every session of the lower one.
 *
 * There may be several ways to a donor, over different transports.  An attachment takes one at a time: when it is
 * lost and connecting over it fails, all lanes go on over another, under a higher generation (ways.h, scout.c).
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_BRIDGE_H
#define WEFT_NBD_BRIDGE_BRIDGE_BRIDGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"
#include "fabric/base/loop.h"
#include "fabric/transport.h"

struct bridge;
struct bridge_lane;
struct cache_file;
enum cache_content;

enum {
	BRIDGE_MAX_LANES = 64,
	BRIDGE_MAX_REQUEST = 32 << 20, /* bytes of one READ or WRITE */
	BRIDGE_MAX_WAYS = 4,
	BRIDGE_MAX_DONORS = 16,
	BRIDGE_WHY_MAX = 640,
	BRIDGE_CHUNK_MIN = 64 << 10,
	BRIDGE_CHUNK_MAX = 1 << 20,
	BRIDGE_CACHE_MIN_CHUNKS = 16,
	BRIDGE_CACHE_MIN = 4 << 20, /* bytes; enough for chunks of any size that is not asked for */
	BRIDGE_PULL_WORKERS_MAX = 64,
};

/* A way to a donor.  Strings are borrowed while the bridge lives. */
struct bridge_way {
	const struct tp_ops *transport;
	const void *transport_config;
	const char *host, *port;
	uint32_t answer_ms; /* see tp_target */
};

/* A donor, and who we are there. */
struct bridge_donor_config {
	const char *label, *region; /* label: for people; NULL: there is but one */
	struct bridge_way ways[BRIDGE_MAX_WAYS]; /* the first is the fallback, the others are better */
	unsigned nr_ways, first_way;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation; /* the first of this incarnation */
	/* Of an attachment that is taken over, as it was noted; epoch 0: nothing is remembered. */
	uint64_t epoch, granted; /* see weft_hello */
	bool wrote;
	uint64_t expect; /* nothing is remembered, but the region that is meant has this epoch; 0: any */
	bool version0;   /* the donor is known to speak version 0 */
};

struct pull_order;

struct bridge_config {
	/* Where and who, when there is one donor and one way to it (as in bridge_way and bridge_donor_config). */
	const struct tp_ops *transport;
	const void *transport_config;
	const char *host, *port, *region;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation, epoch;
	/* When there is more: used instead; copied. */
	const struct bridge_donor_config *donors;
	unsigned nr_donors;
	uint64_t stripe_bytes; /* of several donors: so much lies at one, then the next has its turn */
	bool new_contents; /* whatever device the regions were parts of, they are this one's from the first grant on */
	bool foreign; /* an NBD server that is not weft's */
	char name[WEFT_NAME_MAX + 1];
	enum weft_mode mode;
	/* How. */
	unsigned nr_lanes;
	bool driven; /* whoever has a request runs its lane (lane/drive.h); lanes are not bound to processors then */
	uint32_t timeout_ms;      /* an operation without an answer for so long fails the connection */
	uint32_t dead_timeout_ms; /* requests wait so long for a reconnection; then -EIO, still trying; 0: for ever */
	uint32_t return_ms;       /* see ways.h; 0: BRIDGE_RETURN_MS */
	uint32_t settle_ms;       /* 0: BRIDGE_SETTLE_MS */
	uint32_t connect_timeout_ms;
	uint32_t stall_ms; /* 0: 30 s; how long a front-end's client may hold buffers that others wait for, or not finish its handshake */
	/* A managed attachment: bytes of cache; 0: direct, and what follows means nothing. */
	uint64_t cache_bytes;
	uint32_t chunk_bytes; /* a power of two, 64 KiB to 1 MiB; 0: as the path asks for */
	bool write_through;   /* a WRITE is done when it is at the donor */
	uint32_t push_interval_ms; /* what is dirty is written back after so long; > 0 */
	bool pull;            /* fetch the whole region in the background */
	unsigned pull_workers; /* chunks at a time */
	uint64_t pull_rate;   /* bytes a second; 0: no limit */
	const struct pull_order *pull_order; /* borrowed until bridge_start() returns; NULL: as it lies */
	struct cache_file *cache_file; /* where the cache lies, borrowed; NULL: in memory */
	const char *uri;      /* what the file remembers that it is of; borrowed */
	bool resume;          /* with what the file holds, as whom and of what it says; else it is begun anew */
	bool assume_stable; /* foreign: its contents survive what ended a connection */
	/* Any thread, without locks: a link was granted or lost, or the attachment became dead or stale. */
	void (*changed)(void *ctx);
	/* Whether whoever wants the bridge does not any more: asked a few times a second while bridge_start() waits.  NULL: it is wanted. */
	bool (*given_up)(void *ctx);
	void *changed_ctx;
	/*
	 * Keeps what a take-over has to say: the generation that a donor has granted, before anything is asked under it, and that something was
	 * written under it, before anybody learns of that.  Called for donors whose contents may be put back (tp_info.restorable), from any
	 * lane's thread, without locks.  0, or -errno: then the grant is given up, or the write fails.  NULL: nobody keeps it.
	 */
	int (*note)(void *ctx, unsigned donor, uint64_t epoch, uint64_t granted, bool wrote);
	void *note_ctx;
};

/* Copies config.  Opens the transport and registers memory for each lane; connects nothing yet. */
int bridge_new(const struct bridge_config *config, struct bridge **ret, struct weft_error *err);
/*
 * Connects, the first lane alone, then the others; blocks until all are granted, or the first was
 * refused (the result then), or the others' connect timeout is over (they go on trying).
 */
int bridge_start(struct bridge *bridge, struct weft_error *err);
/*
 * In place of bridge_start(): as one that is stale, and was granted `infos` (one of each donor) before; asks the donors nothing.  It
 * has no cache.  *why: why it is stale.
 */
int bridge_start_stale(struct bridge *bridge, const struct tp_info *infos, const struct weft_error *why, struct weft_error *err);
/*
 * Waits for what is in flight, flushes, says goodbye and ends the threads; the front-ends were stopped
 * before.  An error means that the last FLUSH failed, or was not answered within timeout_ms since something was written back
 * last; it is stopped all the same.
 */
int bridge_stop(struct bridge *bridge, uint32_t timeout_ms, struct weft_error *err);
/* After config.changed(): lanes follow the first donor's connection to another network card.  Cheap if it has none. */
void bridge_place_again(struct bridge *bridge);
/* Stopped or never started.  Takes NULL. */
void bridge_free(struct bridge *bridge);

/* What was granted first; constant after bridge_start().  Any thread. */
const struct tp_info *bridge_info(const struct bridge *bridge);
const struct bridge_config *bridge_config_of(const struct bridge *bridge);
unsigned bridge_nr_lanes(const struct bridge *bridge);
struct bridge_lane *bridge_lane(struct bridge *bridge, unsigned i);
/* Deals lanes out in turn, those that are connected if there are any.  Any thread. */
struct bridge_lane *bridge_next_lane(struct bridge *bridge);
/* Whether there is a cache: FLUSH means something then whatever the donor says. */
bool bridge_is_managed(const struct bridge *bridge);
/* Of a managed one: of the whole cache, and of a chunk. */
uint64_t bridge_cache_bytes(const struct bridge *bridge);
uint64_t bridge_chunk_bytes(const struct bridge *bridge);
/* What is in the cache and not at the donor yet; 0 without one.  It shrinks by itself, sooner after bridge_push_now(). */
uint64_t bridge_dirty_bytes(const struct bridge *bridge);
/* Of those, what its cache file has lost: they will never be at the donor.  Any thread. */
uint64_t bridge_lost_bytes(const struct bridge *bridge);
void bridge_push_now(struct bridge *bridge);
/* Everything that its cache holds, in the region's order; see cache-file.h.  Any thread; the bridge goes on meanwhile. */
int bridge_cache_each(struct bridge *bridge, int (*fn)(void *ctx, uint64_t off, uint64_t len, enum cache_content content,
	const void *data), void *ctx);
/* Any thread. */
uint64_t bridge_generation(const struct bridge *bridge);

/* The same of a donor, as it granted it. */
const struct tp_info *bridge_donor_info(const struct bridge *bridge, unsigned donor);
unsigned bridge_nr_donors(const struct bridge *bridge);
/* The way to a donor that was granted last.  Any thread. */
struct bridge_way_now {
	char transport[16];
	uint64_t nr_changes;
	uint64_t since_ns;
	char why[BRIDGE_WHY_MAX]; /* "" before the first change */
};
void bridge_way_now(struct bridge *bridge, unsigned donor, struct bridge_way_now *ret);
/* Bytes at each donor that its region has beyond its part of the whole.  Constant after bridge_start(). */
uint64_t bridge_bytes_cut_off(const struct bridge *bridge);

/* Another process has the attachment: there is no way back.  Any thread. */
bool bridge_is_superseded(struct bridge *bridge);
/* "ready", "reconnecting", "dead", "stale" (or "out of memory"); why (may be NULL) has code 0 where there is nothing to say. */
const char *bridge_state(struct bridge *bridge, struct weft_error *why);
/* The same, and for how long a donor has owed an answer or been away. */
const char *bridge_state_silent(struct bridge *bridge, struct weft_error *why, uint64_t *ret_silent_ns);

/*
 * The way back from "stale": drops the cache, dirty or not, and attaches anew with whatever contents there are, under `generation`, the
 * first of a new incarnation.  Front-ends stay; requests fail until it has succeeded.  Nothing behind the front-ends may
 * remember the old contents.  granted (may be NULL) is called when the donors have granted it, before any request is let in.
 * -EINVAL: it is not stale; -EPERM: another process has taken it over.  Otherwise it is stale still, with the reason.  Takes up to
 * twice the connect timeout.
 */
int bridge_reset(struct bridge *bridge, uint64_t generation, int (*granted)(void *ctx, struct weft_error *err), void *ctx,
	struct weft_error *err);

/* The whole state as JSON (a new reference), and the flight recorders' contents. */
json_t *bridge_status(struct bridge *bridge);
json_t *bridge_explain(struct bridge *bridge);

/* ---- For front-ends ---- */

/*
 * A request.  The owner fills the first part and keeps it in place until done() is called, once,
 * on the lane's thread, maybe inside bridge_lane_submit().
 */
struct bridge_request {
	uint8_t kind;  /* enum tp_op_kind, never TP_PROBE */
	uint8_t flags; /* TP_FUA, … */
	uint64_t off, len; /* inside the region, len > 0 (FLUSH: both 0) */
	void *buf;         /* READ, WRITE: inside mem, of bridge_lane_register() */
	struct tp_mem *mem;
	bool may_lend;     /* READ: done() looks for the data where `lent` says */
	void (*done)(struct bridge_request *rq, int error); /* error: 0 or -errno */

	/* For done(): the data, in the cache, until bridge_lane_give_back(); NULL: they are in buf. */
	const void *lent;

	/* The lane's. */
	bool orphan, listed, flush_after, flushing;
	bool internal; /* not a front-end's: the cache's, a FLUSH's visit */
	uint8_t next_donor;
	uint32_t nr_ops;
	int status;
	uint64_t next_off; /* READ, WRITE: where the next operation begins; else: bytes of next_donor's part that are done */
	uint64_t start_ns;
	struct bridge_request *next;
	/* The cache's. */
	struct bridge_lane *lane;
	uint8_t phase, waits_at;
	bool missed; /* something had to be fetched */
	bool waited; /* for the chunk at walk_at */
	bool lost;   /* something that was to be written back is */
	uint64_t wait_chunk;
	uint64_t seq, walk_at, walk_end;
	uint64_t taken_from, nr_taken; /* chunks that are being zeroed */
	struct bridge_request *wait_next;
	struct bridge_request *active_next, **active_link;
};

/* What a request of a managed attachment waits for. */
enum bridge_waits {
	BRIDGE_WAITS_NOT,
	BRIDGE_WAITS_CHUNK, /* an operation on its chunk to end */
	BRIDGE_WAITS_ROOM,  /* a slot, or fewer dirty chunks */
	BRIDGE_WAITS_IO,    /* a free operation */
	BRIDGE_WAITS_LEASE, /* a donor's word that what is remembered is what it has */
	BRIDGE_WAITS_OPS,   /* its own operations */
};

/* Takes the request on.  It is posted at the end of the loop's step. */
void bridge_lane_submit(struct bridge_lane *lane, struct bridge_request *rq);
/*
 * The data that done() found in the cache are not looked at any more.  Nothing, if there were none.  The lane's thread.  Meanwhile they
 * keep their place in the cache, and change with what is written there.
 */
void bridge_lane_give_back(struct bridge_lane *lane, struct bridge_request *rq);
/*
 * Whoever sent it has gone: it is carried out now or, without a connection, never; done() is called all the same.
 * bridge_nr_orphans() (any thread) counts those that may still change data: while there are any, a
 * client that comes back could be overtaken by what it sent before.
 */
void bridge_lane_orphan(struct bridge_lane *lane, struct bridge_request *rq);
unsigned bridge_nr_orphans(const struct bridge *bridge);
/*
 * Of a request that ended with -EIO, inside its done(): -ESTALE: the attachment is; -ENOTCONN or -ETIMEDOUT: a donor that
 * the request touches has been gone, or silent, for longer than requests wait; -EIO: the donor said so.
 */
int bridge_lane_why_eio(const struct bridge_lane *lane, const struct bridge_request *rq);

struct weft_loop *bridge_lane_loop(struct bridge_lane *lane);
/*
 * Registers memory for requests of this lane, with each transport that it may take.  0, or -errno.  Deregistering: 0, or -EBUSY
 * while operations in flight point into it.  Takes NULL.
 */
int bridge_lane_register(struct bridge_lane *lane, void *base, size_t len, struct tp_mem **ret, struct weft_error *err);
int bridge_lane_deregister(struct bridge_lane *lane, struct tp_mem *mem);
/*
 * Registers whatever memory there is, all at once, so that requests may point anywhere.  -EOPNOTSUPP where a transport of the
 * lane wants to know its buffers.
 */
int bridge_lane_register_all(struct bridge_lane *lane, struct tp_mem **ret, struct weft_error *err);

/*
 * A buffer for len bytes (1 to BRIDGE_MAX_REQUEST) with its registration.  0, or -EAGAIN: then the waiter is
 * queued, and called once there may be one.  Those who wait are served in turn: nobody else gets a buffer
 * before the first of them does.
 */
struct bridge_waiter {
	void (*fn)(struct bridge_waiter *waiter);
	struct bridge_waiter *next;
	bool queued;
};
int bridge_lane_buffer_get(struct bridge_lane *lane, size_t len, struct bridge_waiter *waiter,
	void **ret, struct tp_mem **ret_mem);
void bridge_lane_buffer_put(struct bridge_lane *lane, void *buf);
/* Whether anybody but `self` waits for a buffer. */
bool bridge_lane_others_wait(const struct bridge_lane *lane, const struct bridge_waiter *self);
void bridge_lane_waiter_cancel(struct bridge_lane *lane, struct bridge_waiter *waiter);

/* Something to do once at the end of the step, after posting: sending replies. */
struct bridge_deferred {
	void (*fn)(struct bridge_deferred *deferred);
	struct bridge_deferred *next;
	bool queued;
};
void bridge_lane_defer(struct bridge_lane *lane, struct bridge_deferred *deferred);
void bridge_lane_defer_cancel(struct bridge_lane *lane, struct bridge_deferred *deferred);
/* Whether the lane looks for completions for a while before it waits. */
bool bridge_lane_spins(const struct bridge_lane *lane);

/*
 * Runs fn on the lane's thread.  Any other thread; waits until fn returned.  A lane blocks on nothing, so
 * that this is a matter of microseconds.  Before bridge_start() and after bridge_stop() fn runs here.
 */
void bridge_lane_run(struct bridge_lane *lane, void (*fn)(struct bridge_lane *lane, void *ctx), void *ctx);

#endif
