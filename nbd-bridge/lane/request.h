/* SPDX-License-Identifier: MIT */
/*
 * A request to a bridge, and handing it to a lane.
 *
 * A request is the lane's from bridge_lane_submit() to its done().  It is on the backlog until the
 * last of its operations was made.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_REQUEST_H
#define WEFT_NBD_BRIDGE_LANE_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/transport.h"

struct bridge_lane;
struct bridge_lanes;

enum { BRIDGE_MAX_REQUEST = 32 << 20 }; /* bytes of one READ or WRITE */

/* The part for a device with copies (lane/copies.h); bits are donors. */
struct request_copies {
	uint16_t asked;  /* that were current, or being made so, when it began */
	uint16_t missed; /* those of them that lack a part of it */
	uint16_t avoid;  /* that answered a READ with an error */
	uint8_t next_copy;
	uint8_t only;    /* goes to this donor alone: its number + 1 */
	bool begun;      /* has its bytes for itself, until it landed */
	bool landed;     /* is at all copies that will have it */
	bool again;      /* begins again when its operations have come back */
	uint8_t turn;
};

/* The lane's part. */
struct request_lane {
	struct request_copies copies;
	bool orphan, listed, flush_after, flushing;
	bool internal; /* not a front-end's: the stage's, a FLUSH's visit */
	uint8_t next_donor;
	uint32_t nr_ops;
	int status;
	/*
	 * READ, WRITE, HASH: where the next operation begins; other kinds: bytes of next_donor's
	 * part that are done
	 */
	uint64_t next_off;
	uint64_t start_ns;
	struct bridge_request *next;
};

/* What a request of a managed attachment waits for. */
enum bridge_waits {
	BRIDGE_WAITS_NOT,
	BRIDGE_WAITS_CHUNK, /* the end of an operation on its chunk */
	BRIDGE_WAITS_ROOM,  /* a slot, or fewer dirty chunks */
	BRIDGE_WAITS_IO,    /* a free operation */
	BRIDGE_WAITS_LEASE, /* a donor's word that it has the contents that are remembered */
	BRIDGE_WAITS_COMMIT, /* what seals the contents to be on disk */
	BRIDGE_WAITS_OPS,    /* its own operations */
};

/* The part of the stage before the lane, which is the cache.  The lane never looks at it. */
struct request_cache {
	struct cache_lane *at;
	uint8_t phase, waits_at;
	bool missed; /* something had to be fetched */
	bool waited; /* for the chunk at walk_at */
	bool lost;   /* bytes that were to be written back are lost */
	uint64_t wait_chunk;
	uint64_t seq, walk_at, walk_end;
	uint64_t commit; /* a seal's ticket; 0: it was not asked yet */
	uint64_t taken_from, nr_taken; /* chunks that are being zeroed */
	struct bridge_request *wait_next;
	struct bridge_request *active_next, **active_link;
};

/*
 * The owner fills the first part and keeps the request in place until done() is called, once, on
 * the lane's thread, maybe inside bridge_lane_submit().
 */
struct bridge_request {
	uint8_t kind;  /* enum tp_op_kind, never TP_PROBE */
	uint8_t flags; /* TP_FUA, … */
	uint64_t off, len; /* inside the region, len > 0 (FLUSH: both 0) */
	/* READ, WRITE, and HASH for the hashes: inside mem, of bridge_lane_register() */
	void *buf;
	struct tp_mem *mem;
	const struct weft_hashing *hashing; /* HASH: what is asked */
	bool may_lend;     /* READ: done() takes the data from where `lent` says */
	void (*done)(struct bridge_request *rq, int error); /* error: 0 or -errno */

	/*
	 * For done(): the data, in the cache, until bridge_lane_give_back(); NULL: they are in buf.
	 */
	const void *lent;

	struct request_lane lane;
	struct request_cache cache;
};

static inline bool request_changes_data(uint8_t kind)
{
	return kind == TP_WRITE || kind == TP_TRIM || kind == TP_ZERO;
}

/* Its operations begin one where the other ends, whichever donors have the bytes. */
static inline bool request_has_order(uint8_t kind)
{
	return kind == TP_READ || kind == TP_WRITE || kind == TP_HASH;
}

/* Takes the request on.  It is posted at the end of the loop's step.  The lane's thread. */
void bridge_lane_submit(struct bridge_lane *lane, struct bridge_request *rq);
/*
 * Gives back the data that done() found in the cache; does nothing if there were none.  Until then
 * they keep their place in the cache, and change when somebody writes there.  The lane's thread.
 */
void bridge_lane_give_back(struct bridge_lane *lane, struct bridge_request *rq);
/*
 * The request's sender has gone: the request is carried out now or, without a connection, never.
 * done() is called in both cases.  lanes->nr_orphans counts orphans that may still change data:
 * while there are any, an old request could overtake the new ones of a client that comes back.
 */
void bridge_lane_orphan(struct bridge_lane *lane, struct bridge_request *rq);
/*
 * Why a request ended with -EIO; to be asked inside its done().  -ESTALE: the attachment is stale;
 * -ENOTCONN or -ETIMEDOUT: a donor of the request has been gone, or silent, for longer than
 * requests wait; -EIO: the donor said so.
 */
int bridge_lane_why_eio(const struct bridge_lane *lane, const struct bridge_request *rq);

#endif
