/* SPDX-License-Identifier: MIT */
/*
 * Private to nbd-bridge/bridge/: what keeps the copies of a device.
 *
 * One thread at a time keeps them: the control thread inside bridge_start() and bridge_stop(), a
 * thread of its own, the keeper, in between.  It alone changes what is here; others read under the
 * lock.  Whatever takes long calls copies_tend() again and again.
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_COPIES_PRIVATE_H
#define WEFT_NBD_BRIDGE_BRIDGE_COPIES_PRIVATE_H

#include <pthread.h>

#include "nbd-bridge/bridge/copies.h"
#include "nbd-bridge/lane/copies.h"

enum {
	COPIES_LOST_MS = 5000,
	COPIES_WHOLE_MS = 3600000,
	COPIES_SPARE_MS = 60000,
	COPIES_WINDOW = 1 << 20, /* bytes copied at once, which nobody writes meanwhile */
	COPIES_BLOCK = 4096,     /* of which hashes are compared */
	COPIES_ANSWERS = COPIES_WINDOW + 2 * (COPIES_WINDOW / COPIES_BLOCK) * WEFT_HASH_BYTES,
	COPIES_SOON_MS = 50,     /* between two looks while something is not as it should be */
};

/* A donor's. */
struct copies_member {
	enum bridge_copy_state state;
	int64_t since;
	struct weft_error why;
	uint64_t retry_ns; /* not before */
	uint64_t spare_due_ns; /* not current: then a spare takes its place */
	const char *successor; /* that spare's URI, until it has; NULL: there is none */
	bool may_be_target; /* it was asked, since it was granted */
	bool compare; /* what it is behind by is a guess: hashes tell */
	bool is_another; /* its region is not the one that was the copy last */
	bool is_counted; /* … and is in its regions' number, which nobody there was told yet */
	uint64_t told_term; /* the last under which a region may have been told to be this copy */
	uint64_t nr_anew; /* how often it began anew, perhaps with other contents */
	uint64_t silent_ns;
	uint64_t eta_s;
	uint64_t nr_copied; /* bytes that were sent to make it current */
};

/* What is seen of the links to a donor, of all lanes. */
struct copies_seen {
	unsigned nr_ready, nr_idle;
	uint64_t silent_ns; /* the longest */
	struct weft_error why;
};

/* Bytes that are to be made as one of the donors has them; under the lock. */
struct copies_repair {
	bool asked; /* it is under way */
	bool told;  /* whoever asked knows the result */
	unsigned stripe, source;
	uint64_t off, len;
	uint64_t end_ns; /* when it was over */
	int error;
};

struct bridge_copies {
	struct bridge *bridge;
	void (*tend)(struct bridge_copies *copies); /* copies_tend() */
	unsigned nr, min, nr_stripes, nr_donors;
	uint64_t lost_ns, whole_ns; /* lost_ns: also between two tries of what was refused */
	uint64_t spare_ns;
	/* URIs, in turn: a region that was replaced is the last one */
	const char *spares[BRIDGE_MAX_DONORS];
	unsigned nr_spares;
	struct lanes_copies shared;
	struct copies_member members[BRIDGE_MAX_DONORS];
	struct bridge_copies_known known[BRIDGE_MAX_DONORS]; /* of each stripe */
	bool state_due[BRIDGE_MAX_DONORS]; /* its generation is not in the state yet */
	uint32_t noting;  /* donors that have not noted their set's generation yet */
	uint32_t live, targets, refuse;
	uint32_t joining; /* those of live that are about to be members */
	uint32_t failed;  /* those of live that lack a request */
	uint32_t gone;    /* those of live that lost their contents, and cannot be left behind */
	bool making;      /* the members of a new set are made the same, before anything is noted */
	bool started;     /* the lanes carry out requests */

	pthread_t thread;
	bool running;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool kicked, ending; /* under the lock */
	struct copies_repair repair;

	/* COPIES_WINDOW bytes, then the hashes of two windows, then an answer's of each donor. */
	uint8_t *memory;
	struct tp_mem *mem; /* with the first lane */
};

/* A request at one donor, by the first lane.  Lies where it is waited for. */
struct copies_io {
	struct bridge_request rq;
	struct bridge_copies *copies;
	struct weft_hashing hashing;
	unsigned donor;
	bool done; /* under the lock */
	int error;
};

/* ---- copies-io.c ---- */

/* buf: in copies->memory. */
void copies_io_start(struct bridge_copies *copies, struct copies_io *io, unsigned donor,
	uint8_t kind, uint64_t off, uint64_t len, void *buf);
/* A question about the notes; one at a time to each donor. */
void copies_ask_start(struct bridge_copies *copies, struct copies_io *io, unsigned donor,
	const struct weft_copies_asked *asked);
/*
 * Waits for its end, up to lost_ns; then the connection ends, and the request with it.  tends:
 * calls copies_tend() meanwhile.  0, or -errno.
 */
int copies_io_wait(struct bridge_copies *copies, struct copies_io *io, bool tends);
int copies_ask_wait(struct bridge_copies *copies, struct copies_io *io,
	struct weft_copies_answer *ret);
/* Asks, and waits. */
int copies_ask(struct bridge_copies *copies, unsigned donor, const struct weft_copies_asked *asked,
	struct weft_copies_answer *ret);
/* Waits for a kick, or ms. */
void copies_wait(struct bridge_copies *copies, unsigned ms);
bool copies_is_ending(struct bridge_copies *copies);
/* Whoever starts the bridge does not want to any more.  Until it has started. */
bool copies_is_given_up(const struct bridge_copies *copies);

/* ---- copies-keep.c ---- */

void copies_see(struct bridge_copies *copies, struct copies_seen *seen);
/* Tells the lanes who is current, and the attachment. */
void copies_order(struct bridge_copies *copies, const struct lane_copies_order *more);
/* A generation of the stripe's set begins, with what is in live. */
void copies_change(struct bridge_copies *copies, unsigned stripe);
/*
 * Before a copy may be a target: whether its region is the one that was the copy, or is known as
 * another one.  False: something has to be noted first, and then it is to be called again.
 */
bool copies_take_in(struct bridge_copies *copies, unsigned donor);
/* A NOTE, or an END, of the generation that the donor's set has. */
struct weft_copies_asked copies_question(const struct bridge_copies *copies, unsigned donor,
	enum weft_copies_action action);
/* Notes what is due, as far as that is possible now. */
void copies_note(struct bridge_copies *copies);
/* Looks after everything: the lost, the returning, what is due. */
void copies_tend(struct bridge_copies *copies);
void copies_set_state(struct bridge_copies *copies, unsigned donor, enum bridge_copy_state state,
	const struct weft_error *why);
static inline uint32_t copies_of_stripe(const struct bridge_copies *copies, unsigned stripe)
{
	return ((1U << copies->nr) - 1) << stripe * copies->nr;
}
/* What lanes have told of copies that failed. */
static inline void copies_fetch_failed(struct bridge_copies *copies)
{
	copies->failed |= atomic_exchange(&copies->shared.failed, 0) & copies->live;
}
static inline bool copies_any_due(const struct bridge_copies *copies)
{
	bool due = copies->noting;

	for (unsigned i = 0; i < copies->nr_stripes; i++)
		due |= copies->state_due[i];
	return due;
}

/* ---- copies-sync.c ---- */

/* Makes a copy that is behind current, if there is one that can be.  False: there was none. */
bool copies_sync(struct bridge_copies *copies);
/* Makes the same what may differ at current copies.  False: there was nothing to do, or no way. */
bool copies_mend(struct bridge_copies *copies);

/* Carries out a repair that somebody waits for.  False: nobody does. */
bool copies_repair(struct bridge_copies *copies);

/* ---- copies.c: for the bridge ---- */

/* Nothing is asked yet.  0, or -ENOMEM. */
int copies_new(struct bridge *bridge, struct bridge_copies **ret);
/* Settles who is current, and begins.  The lanes' first connections have a result. */
int copies_begin(struct bridge *bridge, struct weft_error *err);
/* NULL is fine: there are none (yet). */
void copies_kick(void *copies);
/*
 * Ends the keeper.  clean: all was flushed, and nothing is written any more: the members note it,
 * if all is well.
 */
void copies_end(struct bridge_copies *copies, bool clean);
/* The lanes have ended.  Takes NULL. */
void copies_free(struct bridge_copies *copies);

#endif
