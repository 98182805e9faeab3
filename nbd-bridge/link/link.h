/* SPDX-License-Identifier: MIT */
/*
 * A connection to a donor: posting, completions, liveness, and coming back after a loss.  A link
 * belongs to one worker's thread.  It tells its owner what happens, and knows nothing of the rooms
 * above.
 *
 * Operations on it end exactly once, by owner->op_done(): with the donor's answer, or with an
 * error.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_LINK_H
#define WEFT_NBD_BRIDGE_LINK_LINK_H

#include "fabric/base/worker.h"
#include "nbd-bridge/link/op.h"
#include "nbd-bridge/link/peer.h"
#include "nbd-bridge/link/recorder.h"

enum {
	LINK_OPS = 512,  /* operations at most */
	/*
	 * As many as a donor takes on a connection.  Beyond these only small ones are posted: they
	 * are on the line while others are carried out.  Large ones fill the line anyway, and would
	 * wait for each other there until they are late.
	 */
	LINK_FEW = 128,
	LINK_SMALL_BYTES = 64 << 10,
	LINK_SMALL_HASHED = 1 << 20, /* what a HASH is about, of which hashes come alone */
	LINK_BATCH = 64, /* operations posted, and completions taken, at once */
	LINK_GOODBYE_MS = 500,
};

enum link_state {
	LINK_IDLE,       /* not started, or ended */
	LINK_CONNECTING, /* waits for the donor's grant */
	LINK_READY,      /* operations are posted */
	LINK_DRAINING,   /* lost: waits for the transport to give back what it holds */
	LINK_BACKOFF,    /* waits to try again */
	LINK_STALE,      /* for good: every request fails */
};

/* All on the link's thread; none may be NULL. */
struct link_owner {
	/* The operation, which is on no list, has ended: 0 or -errno. */
	void (*op_done)(struct bridge_link *link, struct bridge_op *op, int error);
	/*
	 * Fails everything that waits for the link with the error, queued and parked operations by
	 * link_fail_ops().  Returns how many.
	 */
	unsigned (*fail_all)(struct bridge_link *link, int error);
	/* Whether an operation of unknown fate may be posted again; else it fails. */
	bool (*may_repeat)(struct bridge_link *link, const struct bridge_op *op);
	/* The link became READY; nothing is posted yet. */
	void (*ready)(struct bridge_link *link);
	/* The link was granted: waiting requests may go on. */
	void (*granted)(struct bridge_link *link);
	/* The link is no longer READY. */
	void (*lost)(struct bridge_link *link);
	/*
	 * The first connection was granted (1) or refused (-errno, with the reason).  May be called
	 * more than once.
	 */
	void (*first_result)(struct bridge_link *link, int result, const struct weft_error *why);
	/* Called at each look at a READY connection: every five seconds, or sooner. */
	void (*tick)(struct bridge_link *link);
};

struct bridge_link {
	const struct link_owner *owner;
	void *owner_ctx; /* the owner's */
	struct weft_worker *worker;
	struct bridge_recorder *recorder;
	struct tp *const *tps; /* of the attachment's transports */
	struct bridge_peer *peer;
	struct bridge_attachment *attachment; /* the peer's */
	enum link_state state;
	struct tp_conn *conn, *next; /* next: granted, takes over once conn has ended */
	struct tp_conn *fresh; /* at the same generation, takes over while conn works; renew.c */
	bool holds; /* fresh is granted: nothing is posted until conn has answered everything */
	struct weft_watch watch, fresh_watch;
	uint64_t renew_ns; /* not before; weft_worker_now() */
	uint64_t generation; /* of conn, or of the last one */
	const struct bridge_site *site; /* the same */
	unsigned way;        /* of the site; the same */
	bool was_granted;    /* that generation was granted, and cannot be asked for again */
	bool insists;        /* tries again even if the first attempt is refused */
	struct op_list queue, parked;
	struct bridge_op probe;
	uint64_t probe_sent_ns; /* weft_boottime_ns() */
	struct weft_timer retry, dead, tick;
	uint32_t tick_ms;    /* as the tick is set now */
	uint32_t backoff_ms;
	uint64_t ready_ns;   /* when the connection was granted */
	uint64_t seen_ns;    /* when the donor last answered */
	/*
	 * since when the link is not ready, or was granted and the donor has answered nothing; 0:
	 * the donor answers
	 */
	uint64_t down_ns;
	bool is_dead;        /* --dead-timeout is over */
	/*
	 * a donor of version 0 refused it as stale since the last grant, and it was tried once more
	 */
	bool insisted;
	bool asked_version0; /* the hello that was sent last */
	unsigned asked_key; /* … with which key (weft_held_key_number()) */
	const struct tp *asked_tp; /* … over which transport; NULL: connecting could not start */
	bool must_note;      /* a write is not noted yet: see peer_note_wrote() */
	struct weft_error why; /* of the last loss or refusal */
	/* Where the region moves (follow.h). */
	char told[WEFT_PLACE_MAX]; /* the place that the last refusal named; "": none */
	struct weft_error place_why; /* why the place refused it last; code 0: it did not */
	unsigned nr_at_once;  /* attempts since the last one that waited */
	uint64_t between_ns;  /* since when the region is between two donors; 0: it is not */
	uint32_t soon_ms;     /* the last wait for it */
	char path[160];
	uint64_t nr_reconnects, nr_renewals;
	_Atomic uint64_t nr_ops, nr_posts; /* posts: calls of tp_post() that accepted something */
	struct bridge_op *free_ops;
	struct bridge_op ops[LINK_OPS];
};

/* Fills the link, with the first way; connects nothing. */
void link_init(struct bridge_link *link, const struct link_owner *owner, void *owner_ctx,
	struct weft_worker *worker, struct bridge_recorder *recorder, struct tp *const *tps,
	struct bridge_peer *peer);
void link_start(struct bridge_link *link);
/*
 * Ends the link for good, with a goodbye if nothing is in flight; waiting operations fail.  Blocks
 * for some LINK_GOODBYE_MS at most.
 */
void link_end(struct bridge_link *link);
/* Posts waiting operations.  True: operations failed, so there is room. */
bool link_pump(struct bridge_link *link);
/* Takes completions and follows the connection's state. */
void link_progress(struct bridge_link *link);
/* Asks for a wake-up; true: there is work already. */
bool link_arm(struct bridge_link *link);
/* Connects a link anew that is stale or was refused: the attachment is valid again. */
void link_restart(struct bridge_link *link);
/*
 * After the attachment became stale, or a newer generation was granted: ends a connection that is
 * useless now.
 */
void link_check(struct bridge_link *link);
/*
 * Gives a session up that works, without a goodbye, for another at the next generation: that fences
 * whatever was done under it.  why: for people.
 */
void link_renounce(struct bridge_link *link, const char *why);
/* Ends queued and parked operations that `which` names (NULL: all).  Returns how many. */
unsigned link_fail_ops(struct bridge_link *link, int error,
	bool (*which)(const struct bridge_op *op));

/* For how long the donor has owed an answer, or has been without a connection; 0: it answers. */
uint64_t link_silent_ns(const struct bridge_link *link);
const char *link_state_name(const struct bridge_link *link);

/* Whether an operation may change data. */
static inline bool op_changes_data(const struct bridge_op *op)
{
	return op->tp.kind == TP_WRITE || op->tp.kind == TP_ZERO || op->tp.kind == TP_TRIM;
}

/* ---- For a scout ---- */

/*
 * Starts connecting over the site's way, at the generation, as tp_connect() does.  *ret_version0
 * (may be NULL): the hello is of version 0.
 */
int link_connect(const struct bridge_link *link, const struct bridge_site *site, unsigned way,
	uint64_t generation, struct tp_conn **ret, bool *ret_version0, struct weft_error *err);
/*
 * A connection over this way of the site was granted at this generation, which is the donor's now:
 * it replaces the link's connection.
 */
void link_take_over(struct bridge_link *link, struct tp_conn *conn, uint64_t generation,
	const struct bridge_site *site, unsigned way);

#endif
