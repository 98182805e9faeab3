/* SPDX-License-Identifier: MIT */
/*
 * What the files share.  One uses those before it in this list alone: fields.c; notes.c, pull.c;
 * take-view.c, take-ask.c, take-copy.c, take-run.c, take.c; give.c; moves.c.
 */
#ifndef WEFT_FABRIC_MOVE_MOVES_PRIVATE_H
#define WEFT_FABRIC_MOVE_MOVES_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/key/key.h"
#include "fabric/move/moves.h"
#include "fabric/move/notes.h"
#include "fabric/move/pull.h"

struct tp_talk;

enum take_phase {
	TAKE_TRACK,    /* asks A, makes room, begins */
	TAKE_PULL,     /* the first copy of all */
	TAKE_CONVERGE, /* copies what was written meanwhile */
	TAKE_FINALIZE, /* A is frozen, or does not say whether it gave the region away */
	TAKE_FOLLOW,   /* serves; A does not know yet */
	TAKE_DONE,
	TAKE_ABORTED,
	TAKE_FAILED,
};

/* What weft_donor_question() and weft status show; under the moves' lock. */
struct take_view {
	enum take_phase phase;
	uint64_t size_bytes, left_bytes, rate, dirty_rate;
	unsigned round, nr_borrowers;
	uint64_t round_ns, round_bytes; /* when the present round began, and what had been copied */
	double downtime_ms;             /* < 0: not yet */
	bool copies; /* the pull is there, and counts */
	struct weft_error error;
};

struct take {
	struct take *next;
	struct weft_moves *moves;
	pthread_t thread;
	bool has_thread;
	/* Constant. */
	uint64_t number;
	char *name; /* of the region, here */
	char from[WEFT_PLACE_MAX], to[WEFT_PLACE_MAX];
	uint64_t bandwidth;
	uint32_t downtime_ms;
	bool disconnect;
	bool resumes; /* of before a restart: only the outcome is asked */
	int cancel_fd;
	_Atomic bool aborts;
	struct take_view view;
	_Atomic uint64_t copied_bytes, checked_bytes;
	/* The thread's. */
	struct weft_uri uri;
	struct tp_talk *talk;
	struct pull pull;
	uint64_t *changed;
	uint8_t reader[WEFT_ID_BYTES];
	struct weft_region *region;
	uint64_t epoch, frozen_ns;
};

struct weft_moves {
	struct weft_moves_config config;
	char *certificates;
	pthread_mutex_t lock; /* what follows; never held while a disk or a peer is waited for */
	struct take *takes;   /* the newest first */
	bool stopping;
	pthread_mutex_t notes_lock; /* the notes, and their file */
	struct notes notes;
	struct {
		struct weft_region *region; /* a reference, of one that is not lent yet */
		uint64_t number;
	} waiting[64];
	unsigned nr_waiting;
};

enum {
	TAKE_RETRY_MS = 250, /* after A did not answer */
	TAKE_WHO_MAX = 320,  /* names of those who cannot follow */
};

/* take-view.c */

void take_set_phase(struct take *t, enum take_phase phase);
/* The next two under the moves' lock, or on its thread. */
bool take_is_over(const struct take *t);
json_t *take_json(const struct take *take);

/* take-ask.c; on the take's thread.  Errors as struct tp_driver's question(), or A's refusals. */

/* False: it is aborted, or the donor stops. */
bool take_nap(const struct take *t, int ms);
/* Whether the error is of the way to A, and not A's answer. */
bool take_is_of_link(int r);
json_t *take_question(const struct take *t, const char *op);
/* Takes over the question.  take_ask: until the take is called off. */
int take_ask(struct take *t, json_t *question, json_t **ret, struct weft_error *err);
int take_ask_with(struct take *t, json_t *question, int cancel_fd, json_t **ret,
	struct weft_error *err);
/* All changes since the last time, by "or" into t->changed; op: give-changes, give-freeze. */
int take_ask_changes(struct take *t, const char *op, uint64_t pace, struct weft_error *err);
/* What goes with the contents, from A's answer. */
int take_apply(struct take *t, const json_t *told, struct weft_error *err);
/* Size and epoch; who cannot follow: how many, and names in TAKE_WHO_MAX. */
int take_look(struct take *t, uint64_t *ret_size, uint64_t *ret_cannot, char *ret_names,
	struct weft_error *err);
int take_check_who_follows(const struct take *t, uint64_t cannot, const char *names,
	struct weft_error *err);
int take_connect_reader(struct take *t, struct weft_error *err);

/* take-copy.c; on the take's thread */

/* Rounds until the rest can be copied while A is frozen. */
int take_converge(struct take *t, struct weft_error *err);
/* A is frozen afterwards, and all that it has is here. */
int take_freeze(struct take *t, struct weft_error *err);

/* take-run.c */

void *take_thread(void *take);
/* Whether there is room here for so much more: 0 with what is left without it, or -ENOSPC. */
int take_check_room(struct take *t, uint64_t size, uint64_t *ret_free, struct weft_error *err);

/* take.c */

/* Begins, or only looks, as the question says.  0 with the answer; or the refusal. */
int take_begin(struct weft_moves *moves, const json_t *question, json_t **ret,
	struct weft_error *err);
/* Goes on with one of before a restart; region: a reference, or NULL. */
int take_resume(struct weft_moves *moves, const struct note *note, struct weft_region *region);
/* Under the moves' lock. */
struct take *take_find(const struct weft_moves *moves, uint64_t number);
int take_abort(struct take *take, struct weft_error *err);
void take_free(struct take *take);

/* give.c: A's answer to a question whose name begins with "give-". */
int give_answer(struct weft_moves *moves, const struct weft_peer *peer, const char *op,
	const json_t *question, json_t **ret, struct weft_error *err);

#endif
