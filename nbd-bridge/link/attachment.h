/* SPDX-License-Identifier: MIT */
/*
 * The part of an attachment that all its lanes share: who it is, which donors it has, what they
 * granted, and whether that is still valid.
 *
 * An attachment knows nothing of the rooms above: its owner hands in functions, for example to wake
 * lanes.  The lock is taken when connections come and go, never for a request.  Fields that a
 * request reads are atomic, or constant once the attachment was granted.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_ATTACHMENT_H
#define WEFT_NBD_BRIDGE_LINK_ATTACHMENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/copying.h"
#include "fabric/hello.h"
#include "fabric/transport.h"
#include "nbd-bridge/link/map.h"

struct weft_held_key;
struct bridge;

enum {
	BRIDGE_MAX_WAYS = 4,
	BRIDGE_MAX_DONORS = 16,
	BRIDGE_MAX_TRANSPORTS = 8,
};

/* A way to a donor.  Strings are borrowed while the attachment lives. */
struct bridge_way {
	const struct tp_ops *transport;
	const void *transport_config;
	const char *host, *port;
	uint32_t answer_ms; /* see tp_target */
};

/* A donor, and who we are there. */
struct bridge_donor_config {
	const char *label, *region; /* label: for people; NULL: there is but one */
	/* the first is the fallback, the others are better */
	struct bridge_way ways[BRIDGE_MAX_WAYS];
	unsigned nr_ways, first_way;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation; /* the first of this incarnation */
	/* For an attachment that is taken over, as it was noted; epoch 0: nothing is remembered. */
	uint64_t epoch, granted; /* see weft_hello */
	bool wrote;
	/* nothing is remembered, but the region that is meant has this epoch; 0: any */
	uint64_t expect;
	uint64_t identity; /* of a foreign server's device, as it was noted; 0: any */
	bool version0;   /* the donor is known to speak version 0 */
	/*
	 * Of a region that moved, as it was noted: where it is, a URI, which the ways lead to;
	 * where it may be soon.  NULL or "": as the attachment was begun; nowhere else.
	 */
	const char *at, *moving;
	/* see struct tp_target; borrowed; NULL: there are none to be had */
	const char *pass_host, *pass_port;
	/* what both prove to each other; NULL: nothing; borrowed while the attachment lives */
	struct weft_held_key *key;
};

/* What is known of a stripe's copies when a bridge begins, and later: bridge/copies.h. */
struct bridge_copies_known {
	uint64_t set, term; /* the term is claimed by this attachment */
	uint32_t change;    /* the last that it used under the term; 0: none */
	uint16_t members;   /* that are current; copy i is bit i */
	uint32_t regions[WEFT_COPIES_MAX]; /* how often the copies got other regions */
	/* A new set: the members are made the same as this one before it is noted; 0: they are. */
	uint16_t source;
	bool same;          /* they have the same bytes for certain: the one before said goodbye */
};

/* Copies of the device; all zero: there are none. */
struct bridge_copies_config {
	unsigned nr;  /* of each stripe; up to WEFT_COPIES_MAX */
	unsigned min; /* that a write has when it is answered: from 1 to nr */
	/*
	 * With fewer requests fail at once; otherwise they wait, as for any donor that is gone
	 * (dead_timeout_ms).
	 */
	bool fails_on_too_few;
	uint32_t lost_ms;  /* a donor that is silent so long is left behind; 0: 5000 */
	uint32_t whole_ms; /* a copy that came back is current again within this; 0: an hour */
	/*
	 * Regions, by URI, of which one takes the place of a copy that is lost for so long (0: a
	 * minute); borrowed while the bridge lives.
	 */
	const char *spares[BRIDGE_MAX_DONORS];
	unsigned nr_spares;
	uint32_t spare_ms;
	/*
	 * How many donors of each stripe bridge_start() needs: nr - min + 1, or min where the state
	 * of the bridge before tells the members.
	 */
	unsigned nr_needed;
	/*
	 * Asks the donors which copies are current, and fills known[stripe].  The control thread,
	 * inside bridge_start(); 0, or -errno: the bridge does not start.
	 */
	int (*settle)(void *ctx, struct bridge *bridge, struct bridge_copies_known *known,
		struct weft_error *err);
	/*
	 * Notes the generation of the stripe's set in the state, durably, before a donor is told.
	 * 0, or -errno: then nothing changes.  Any thread but a lane's, without locks.
	 */
	int (*note)(void *ctx, unsigned stripe, const struct bridge_copies_known *known);
	void *ctx;
};

/* Where, as whom, and for how long to wait. */
struct bridge_attachment_config {
	/* When there is one donor and one way to it (as in bridge_way and bridge_donor_config). */
	const struct tp_ops *transport;
	const void *transport_config;
	const char *host, *port, *region;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation, epoch;
	/* When there are more: used instead; copied. */
	const struct bridge_donor_config *donors;
	unsigned nr_donors;
	/* several donors: bytes that lie at one before the next has its turn */
	uint64_t stripe_bytes;
	struct bridge_copies_config copies;
	/*
	 * the regions become parts of this device with the first grant, whatever they were parts of
	 */
	bool new_contents;
	bool foreign;      /* an NBD server that is not weft's */
	/*
	 * Each session has an alias (hello.h), by which others of this machine read and write; one
	 * donor, one way, one lane.
	 */
	bool wants_alias;
	bool assume_stable; /* foreign: the server's contents survive the end of a connection */
	uint64_t borrower;  /* foreign: see struct tp_target; 0: none */
	char name[WEFT_NAME_MAX + 1];
	enum weft_mode mode;
	/* the connection fails if an operation has no answer for this time */
	uint32_t timeout_ms;
	/*
	 * requests wait this time for a reconnection, and then fail with -EIO (it is still tried);
	 * 0: for ever
	 */
	uint32_t dead_timeout_ms;
	uint32_t return_ms;       /* see ways.h; 0: BRIDGE_RETURN_MS */
	uint32_t settle_ms;       /* 0: BRIDGE_SETTLE_MS */
	uint32_t connect_timeout_ms;
	/*
	 * Any thread, without locks: a link was granted or lost, or the attachment became dead or
	 * stale.
	 */
	void (*changed)(void *ctx);
	void *changed_ctx;
	/*
	 * Notes two facts for a later take-over: the generation that a donor has granted, before
	 * anything is asked under it; and that something was written under it, before anybody
	 * learns of the write.  Called for donors whose contents may be put back
	 * (tp_info.restorable), from any lane's thread, without locks.  0, or -errno: then the
	 * grant is given up, or the write fails.  NULL: nothing is noted.
	 */
	int (*note)(void *ctx, unsigned donor, uint64_t epoch, uint64_t granted, bool wrote);
	/*
	 * Notes where a donor's region is, and where it may be soon ("": as in
	 * bridge_donor_config), before anything is asked under a grant that says so.  nr goes up
	 * with each change: a lower one that comes late is no news.  Otherwise as note().
	 */
	int (*note_place)(void *ctx, unsigned donor, uint64_t nr, const char *at,
		const char *moving);
	void *note_ctx;
};

struct bridge_attachment;

/* What the owner does for its attachment.  Called on any lane's thread; none may be NULL. */
struct bridge_attachment_owner {
	/* Makes every lane look at what has changed: the newest generation, stale, leases. */
	void (*wake_lanes)(struct bridge_attachment *attachment);
	/* Called before a hello with the generation is sent to the donor. */
	void (*asking)(struct bridge_attachment *attachment, unsigned donor, uint64_t generation);
	/*
	 * Called after a reset, before anything is written back: the donor's contents have this
	 * epoch from now on; 0: nobody knows yet.
	 */
	void (*epoch_is)(struct bridge_attachment *attachment, unsigned donor, uint64_t epoch);
	/* A link was granted or lost, or a copy's donor has other contents.  Without locks. */
	void (*changed)(struct bridge_attachment *attachment);
};

struct bridge_peer;

struct bridge_attachment {
	struct bridge_attachment_config config;
	const struct bridge_attachment_owner *owner;
	struct tp_info info; /* what all donors can do, over all ways; constant once `granted` */
	struct bridge_map map;
	struct bridge_peer *peers; /* one for each donor */
	unsigned nr_peers;
	unsigned nr_copies; /* of each stripe: peer = stripe * nr_copies + copy; 1: none */
	/* with copies, under the lock: the peers that are current; bit i is peer i's */
	uint32_t current;
	unsigned nr_transports;
	struct bridge_way transports[BRIDGE_MAX_TRANSPORTS]; /* host and port mean nothing */
	_Atomic bool stale;   /* connections end; not while a reset tries */
	_Atomic bool refuses; /* requests fail: the attachment is stale, or being reset */
	/*
	 * the earliest of the donors' lease_until_ns: until then they have the contents that are
	 * remembered.  With copies: until then enough copies of each stripe are ours, so that
	 * nobody else can have been granted the others and have gone on with them.
	 */
	_Atomic uint64_t fresh_until_ns;
	/* info is valid, of all donors; set by the first lane before others run */
	bool granted;
	pthread_mutex_t lock;
	struct weft_error stale_why; /* under the lock; set once */
	bool superseded;             /* under the lock: stale since another process has it */
};

/* Copies config.  0, or -ENOMEM. */
int attachment_init(struct bridge_attachment *attachment,
	const struct bridge_attachment_config *config, const struct bridge_attachment_owner *owner,
	struct weft_error *err);
/* No lane has a link of the attachment any more. */
void attachment_fini(struct bridge_attachment *attachment);

/* Any thread, once: makes the attachment stale; nothing of it is valid any more. */
void attachment_set_stale(struct bridge_attachment *attachment, const struct weft_error *why);
/* The same, when another process has it. */
void attachment_set_superseded(struct bridge_attachment *attachment, const struct weft_error *why);
/* Another process has the attachment: there is no way back.  Any thread. */
bool attachment_is_superseded(struct bridge_attachment *attachment);
/* Why the attachment is stale; false, with *ret untouched: it is not.  Any thread. */
bool attachment_stale_why(struct bridge_attachment *attachment, struct weft_error *ret);
/*
 * With copies: these peers are current from now on.  Any thread; without locks.
 */
void attachment_set_current(struct bridge_attachment *attachment, uint32_t current);
/* The lock is held: fresh_until_ns anew.  Whether it was over before. */
bool attachment_renew(struct bridge_attachment *attachment);
/* Any thread: calls config.changed(), since the state may be another. */
void attachment_changed(const struct bridge_attachment *attachment);
/*
 * Makes a stale attachment a new incarnation that remembers nothing; `generation` is its first.
 * Requests are still refused.  No link has a connection.
 */
void attachment_begin_anew(struct bridge_attachment *attachment, uint64_t generation);

/*
 * In place of grants: takes what the donors granted before (one info of each).  0, or -EINVAL: the
 * infos do not fit together.
 */
int attachment_assume_grants(struct bridge_attachment *attachment, const struct tp_info *infos,
	struct weft_error *err);

/* The first donor's generation, for people.  Any thread. */
uint64_t attachment_generation(const struct bridge_attachment *attachment);
/*
 * Bytes by which all donors' regions are longer than their parts of the whole.  Constant once the
 * attachment was granted.
 */
uint64_t attachment_bytes_cut_off(const struct bridge_attachment *attachment);

#endif
