/* SPDX-License-Identifier: MIT */
/*
 * A donor as an attachment sees it: the generation and the way that all lanes share, what was
 * granted, what has to be noted, the lease.  Any lane's thread.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_PEER_H
#define WEFT_NBD_BRIDGE_LINK_PEER_H

#include <jansson.h>

#include "nbd-bridge/link/attachment.h"
#include "nbd-bridge/link/ways.h"

enum { BRIDGE_WHY_MAX = 640 };

/* What changes is under the attachment's lock, but for the atomics. */
struct bridge_peer {
	struct bridge_attachment *attachment;
	unsigned index;
	struct bridge_donor_config config;
	uint8_t transports[BRIDGE_MAX_WAYS]; /* of each way: in attachment.transports */
	_Atomic uint64_t generation;
	_Atomic uint64_t granted_generation; /* the highest that was: lower ones are fenced */
	uint64_t noted_generation; /* config.note() knows of it */
	_Atomic uint64_t wrote_generation; /* … and that something was written under this one */
	unsigned nr_ready;   /* links that are, at the generation */
	/* a scout asks for the next generation over another way: nobody else may */
	bool moving;
	bool granted;        /* info is valid */
	struct tp_info info; /* what was granted first */
	_Atomic bool version0;   /* the donor, when it granted last */
	/*
	 * of weft_boottime_ns(): others may have been granted the region after; UINT64_MAX: never
	 */
	uint64_t lease_until_ns;
	struct bridge_ways ways;
	char used_transport[16];
	struct weft_error left_why; /* why the way before was left */
	char way_why[BRIDGE_WHY_MAX];
};

/*
 * Where to connect: 0, or -EAGAIN: another lane finds out; ask again soon.  lost: what was granted
 * at the generation is, so that the next one is due.
 */
int peer_where(struct bridge_peer *peer, uint64_t generation, bool lost, uint64_t *ret_generation,
	unsigned *ret_way);
/* A link was granted; or lost that.  *ret_way_changed: it is the first over another way. */
void peer_granted(struct bridge_peer *peer, uint64_t generation, unsigned way,
	const struct tp_info *info, bool *ret_way_changed);
void peer_lost(struct bridge_peer *peer, uint64_t generation, unsigned way,
	const struct weft_error *why);
/* Connecting at the generation failed: another way may be taken from now on.  True: at once. */
bool peer_refused(struct bridge_peer *peer, uint64_t generation, const struct weft_error *why);
/* The next generation, unless somebody has raised it already. */
void peer_raise(struct bridge_peer *peer, uint64_t generation);
/*
 * A grant is kept for a take-over, before anything is asked under it; that something was written
 * under it, before anybody learns of it.  0, or -errno.
 */
int peer_note_granted(struct bridge_peer *peer, uint64_t generation);
int peer_note_wrote(struct bridge_peer *peer, uint64_t generation);
/* The highest generation that is kept so; 0: none, or the contents cannot be put back. */
uint64_t peer_noted(struct bridge_peer *peer);
/* What a hello to it says of what is remembered. */
void peer_claim(const struct bridge_peer *peer, struct weft_hello *hello);
/*
 * What was sent at sent_ns (weft_boottime_ns()) was a sign of life, and the donor has answered it.
 */
void peer_renew_lease(struct bridge_peer *peer, uint64_t sent_ns, uint32_t lease_ms);
/*
 * A scout's: whether to look, and over which way; begins, or ends, the move to the next generation.
 */
bool peer_may_look(struct bridge_peer *peer, unsigned *ret_way, uint64_t *ret_wait_ns);
void peer_look_failed(struct bridge_peer *peer, const struct weft_error *why);
bool peer_move_begin(struct bridge_peer *peer, uint64_t generation);
void peer_move_end(struct bridge_peer *peer, bool moved, uint64_t generation, unsigned way);

/*
 * grant.c: whether the grant is what this attachment was made for; remembers the first.  -ESTALE,
 * or -EOPNOTSUPP: it can do less.  The first grants of all donors come to one lane alone.
 */
int peer_check_grant(struct bridge_peer *peer, const struct tp_info *info, struct weft_error *err);

/* The way to the donor that was granted last.  Any thread. */
struct bridge_way_now {
	char transport[16];
	uint64_t nr_changes;
	uint64_t since_ns;
	char why[BRIDGE_WHY_MAX]; /* "" before the first change */
};
void peer_way_now(struct bridge_peer *peer, struct bridge_way_now *ret);
/* For the bridge's status: a new reference.  Any thread. */
json_t *peer_status(struct bridge_peer *peer);

#endif
