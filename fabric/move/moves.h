/* SPDX-License-Identifier: MIT */
/*
 * Regions that move between donors: both sides of it at one donor.  tests/model/README.md, "When a
 * region moves", has the rules.  The taker asks, and the giver answers:
 *
 *  1. The taker looks (give-look), notes PREPARED, and makes room.
 *  2. give-begin: the giver notes what is written from now on.  All sessions end once, and their
 *     borrowers learn where the region goes.
 *  3. The taker reads everything and compares hashes; then what was written meanwhile
 *     (give-changes), again and again.
 *  4. give-freeze: all sessions end.  The taker reads the last changes.
 *     Of a file it makes all of it durable, with a mark by which it alone can go on with it.
 *  5. give-commit: the giver of a file makes such a mark, too.  It notes GIVEN, durably, and
 *     answers.  From now on the taker decides.
 *  6. The taker notes OWNER, durably, and serves.
 *     In a post-copy move 3 and the second half of 4 come now: the taker notes FILLING, serves,
 *     and reads from the giver what it lacks; then it notes OWNER.
 *  7. give-served: the giver notes GONE, and lets go of the bytes.
 *
 * Until GIVEN is noted the giver decides alone, and everything can be called off at no cost.
 * Between that and OWNER nobody serves; the taker asks (give-outcome) until it knows.
 *
 * Threads: weft_moves_question() any, and may block; the others the thread of the donor's loop.
 */
#ifndef WEFT_FABRIC_MOVE_MOVES_H
#define WEFT_FABRIC_MOVE_MOVES_H

#include <jansson.h>

#include "fabric/donor/moving.h"

struct weft_moves;

/* What the donor's program does for it.  Any thread; may wait for the loop's thread. */
struct weft_moves_owner {
	/*
	 * Makes memory of this size and epoch under the name; it outlives a crash.  Or, with a
	 * transfer, a file of the directory.  Not lent yet.  fills: as in weft_memory_spec.
	 */
	int (*make)(void *ctx, const char *name, uint64_t size_bytes, uint64_t epoch,
		const struct weft_transfer *transfer, bool fills, struct weft_region **ret,
		struct weft_error *err);
	/*
	 * A region that was made, or one that was lent, is not ours any more: drops all of it, but
	 * for a file that came by no move.  0;
	 * -ESHUTDOWN: this donor ends, and the next may find the region.
	 */
	int (*forget)(void *ctx, struct weft_region *region);
	/* How much memory may come now, within take_bytes; NULL: all of that. */
	uint64_t (*room)(void *ctx);
};

struct weft_moves_config {
	struct weft_donor *donor; /* outlives it */
	const char *notes;        /* the path of a file; copied */
	uint64_t take_bytes;      /* how much memory may come here in sum; 0: none */
	const char *take_directory; /* where files come to, an absolute path; NULL: none do */
	const char
		*certificates; /* by which it proves who it is where it takes from; NULL: a key */
	const struct weft_moves_owner *owner;
	void *ctx;
};

/* 0; or as notes_load(): then nothing may be lent. */
int weft_moves_new(const struct weft_moves_config *config, struct weft_moves **ret,
	struct weft_error *err);
/*
 * Calls off, or leaves for the next start, what is under way.  Questions that are being answered
 * are waited for; later ones are refused.  Also again.
 */
void weft_moves_stop(struct weft_moves *moves);
/* Takes NULL.  Stops them first. */
void weft_moves_free(struct weft_moves *moves);

/*
 * What a donor that starts has to know of a region that it would lend: whether contents of this
 * name are to be recovered (they came here, or were given and are kept), and whether they are
 * elsewhere, so that no new region of the name is made.
 */
enum weft_moves_kept {
	WEFT_MOVES_NOTHING, /* no note: as ever */
	WEFT_MOVES_HERE,    /* came here, or may have */
	WEFT_MOVES_AWAY,    /* went elsewhere: to *ret_place */
};
/*
 * A file that is to be lent was opened, and nobody knows it yet: it goes on under its epoch if its
 * mark says that the notes have to decide, and they do so.
 */
void weft_moves_opened(struct weft_moves *moves, struct weft_region *region);
enum weft_moves_kept weft_moves_look(const struct weft_moves *moves, const char *name,
	char ret_place[WEFT_PLACE_MAX]);
/* Of a region that came here, or may have, as a file: its path; NULL: it is none. */
const char *weft_moves_file(const struct weft_moves *moves, const char *name);
/*
 * Calls fn for each region that came here, or may have, and is to be recovered, until fn returns
 * something else than 0, which is returned.  file: its path, or NULL, of memory.
 */
int weft_moves_each(const struct weft_moves *moves,
	int (*fn)(void *ctx, const char *name, uint64_t size_bytes, const char *file), void *ctx);
/*
 * A region was recovered (NULL: it was not, its bytes are gone), before anybody is let in.  What is
 * to become of it: LEND; KEEP, without lending it, or not yet; DROP: another donor has the
 * contents; REMOVE: the same, of a file that was begun here.
 */
enum weft_moves_wish { WEFT_MOVES_LEND, WEFT_MOVES_KEEP, WEFT_MOVES_DROP, WEFT_MOVES_REMOVE };
enum weft_moves_wish weft_moves_recovered(struct weft_moves *moves, const char *name,
	struct weft_region *region);
/*
 * A region that may have come here is about to be given up by its owner, for good: it is not looked
 * for any more.  0; -EBUSY: its move has not ended; or as notes_save().
 */
int weft_moves_give_up(struct weft_moves *moves, const char *name, struct weft_error *err);
/* The donor listens: goes on with what was under way. */
void weft_moves_start(struct weft_moves *moves);
/* Whether nothing new may be taken in: the donor is about to end. */
void weft_moves_close(struct weft_moves *moves, bool closed);

/* weft_donor_config.question: ctx is the moves. */
int weft_moves_question(void *ctx, const struct weft_peer *peer, const json_t *question,
	json_t **ret_answer, struct weft_error *err);

/* For weft status: {"taking": […], "noted": […]}; a new reference. */
json_t *weft_moves_status(struct weft_moves *moves);

#endif
