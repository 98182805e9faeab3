/* SPDX-License-Identifier: MIT */
/*
 * A device of which several donors have a copy: who is current, and how a copy becomes it again.
 * tests/model/README.md, "Copies", has the rules; lane/copies.h has what a request sees of them.
 *
 * With config.attach.copies.nr > 1 the donors are the copies of the first stripe, then those of the
 * second, and so on: donor = stripe * nr + copy.  The copies of a stripe are a set, with a
 * generation of its own; the copy's index on the wire is copy + 1.
 *
 * bridge_start() goes on once enough donors of each stripe have granted, whichever they are, and
 * the others have a result.  It calls config.attach.copies.settle(), which asks the donors and says
 * what is current (struct bridge_copies_known).  Then it begins a generation, notes it in the state
 * and at the members, makes the members the same unless they are, and returns.  From then on a
 * thread of the bridge looks after the copies: it leaves a lost one behind, and makes one that
 * comes back, or was no member, a member again, or another region (config.attach.copies.spares).
 *
 * Threads: the control thread's, unless a comment says otherwise.
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_COPIES_H
#define WEFT_NBD_BRIDGE_BRIDGE_COPIES_H

#include <jansson.h>

#include "fabric/copying.h"
#include "nbd-bridge/link/attachment.h"

struct bridge;

/* ---- for settle(): inside it ---- */

/* Whether the donor has granted the attachment its region; *ret_why (may be NULL): why not. */
bool bridge_copies_granted(struct bridge *bridge, unsigned donor, struct weft_error *ret_why);
/*
 * Asks the donor, over the attachment's own session; waits, up to the time-outs of the attachment.
 * 0, or -errno: -ENOTCONN: it is not granted, or was lost; -EOPNOTSUPP: it knows nothing of copies.
 * Also usable later, by any thread but a lane's.
 */
int bridge_copies_ask(struct bridge *bridge, unsigned donor, const struct weft_copies_asked *asked,
	struct weft_copies_answer *ret, struct weft_error *err);

/* ---- what became of the copies: status, events ---- */

enum bridge_copy_state {
	BRIDGE_COPY_CURRENT, /* a member */
	BRIDGE_COPY_SYNCING, /* gets each write, and is being made the same */
	BRIDGE_COPY_LOST,    /* the donor does not answer, or is refused; still tried */
	BRIDGE_COPY_OTHERS,  /* somebody else has used the region: it is left alone, for good */
};

struct bridge_copy {
	enum bridge_copy_state state;
	uint64_t behind_bytes; /* not CURRENT: that may differ */
	int64_t since;         /* wall clock, seconds: not CURRENT since then; 0: from the start */
	uint64_t silent_ns;    /* as link_silent_ns() */
	uint64_t eta_s;        /* SYNCING: until it is current; 0: not known */
	struct weft_error why; /* not CURRENT; code 0: nothing is wrong */
};

/* Whether there are copies at all. */
bool bridge_has_copies(const struct bridge *bridge);
void bridge_copies_look(struct bridge *bridge, unsigned donor, struct bridge_copy *ret);
/* The generation of the stripe's set, as it is noted. */
struct bridge_copies_known bridge_copies_now(struct bridge *bridge, unsigned stripe);
/*
 * Makes some bytes (up to 1 MiB, offsets are those of a copy) of all current copies of the stripe
 * as the copy has them, which nobody else can tell to be right.  Waits for a moment only.  0, or
 * -errno; -EINPROGRESS: ask again, for the same bytes.
 */
int bridge_copies_repair(struct bridge *bridge, unsigned stripe, unsigned copy, uint64_t off,
	uint64_t len, struct weft_error *err);
/*
 * For bridge_status(): {"copies": 2, "min_copies": 1, "current": 1, "state": "degraded", …,
 * "members": [{"donor", "stripe", "copy", "state", "behind_bytes", "since", "why", …}]}; a new
 * reference.  state: "whole", "degraded", "syncing", or "too few" (writes wait, or fail).
 */
json_t *bridge_copies_status(struct bridge *bridge);

#endif
