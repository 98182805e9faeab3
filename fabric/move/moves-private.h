/* SPDX-License-Identifier: MIT */
/*
 * What the files share.  One uses those before it in this list alone: fields.c, pace.c; notes.c,
 * pull.c;
 * take-view.c, take-ask.c, take-copy.c, take-fill.c, take-run.c, take.c; give.c; resolve.c;
 * moves.c.
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
	TAKE_FILL,     /* serves, and does not have all */
	TAKE_FOLLOW,   /* serves; A does not know yet */
	TAKE_DONE,
	TAKE_ABORTED,
	TAKE_FAILED,
};

/* What of A's an operator brought; or what B was asked to promise. */
enum take_word {
	WORD_NONE,
	WORD_GIVEN,   /* A gave the region away by this move */
	WORD_NEVER,   /* A did not, and never will */
	WORD_REFUSED, /* B will never serve by this move: that is noted */
	WORD_LOST,    /* A is gone for good, and with it what is absent at B */
};

/* What weft_donor_question() and weft status show; under the moves' lock. */
struct take_view {
	enum take_phase phase;
	uint64_t size_bytes, left_bytes, rate, dirty_rate;
	unsigned round, nr_borrowers;
	uint64_t round_ns, round_bytes; /* when the present round began, and what had been copied */
	double downtime_ms;             /* < 0: not yet */
	/* Readers that A had when it was frozen; until then they are waited for here. */
	uint64_t nr_readers, wait_until_ns;
	bool copies; /* the pull is there, and counts */
	/*
	 * All is here that A had, and it is not known whether A gave it away; or, while it fills, A
	 * lets nobody read.
	 */
	bool waits;
	enum take_word word;
	struct weft_error error;
};

/* What moves share that one command asked for.  Under the moves' lock. */
struct take_group {
	struct take_group *next;
	uint64_t number; /* 0: of one move alone */
	unsigned nr;     /* moves */
	struct pace pace;
};

struct take {
	struct take *next;
	struct weft_moves *moves;
	pthread_t thread;
	bool has_thread;
	/* Constant. */
	uint64_t number;
	char *name; /* of the region, here */
	char *file; /* its path here, if it is one; set before anything is noted */
	char from[WEFT_PLACE_MAX], to[WEFT_PLACE_MAX];
	uint64_t bandwidth;
	struct take_group *group;
	uint32_t downtime_ms;
	bool disconnect;
	bool fills;   /* serves before all is here (post-copy) */
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
	uint64_t turn; /* over which connection A is asked: so many were lost before */
};

struct weft_moves {
	struct weft_moves_config config;
	char *certificates, *directory;
	pthread_mutex_t begin_lock; /* one take begins at a time; before the others */
	pthread_mutex_t lock; /* what follows; never held while a disk or a peer is waited for */
	struct take *takes;   /* the newest first */
	struct take *trials;  /* dry runs */
	struct take_group *groups;
	bool stopping, closed;
	unsigned nr_questions; /* that are being answered */
	pthread_cond_t answered;
	pthread_mutex_t notes_lock; /* the notes, and their file: may wait for a disk */
	struct notes notes;
	struct {
		struct weft_region *region; /* a reference, of one that is not lent yet */
		uint64_t number;
	} waiting[64];
	unsigned nr_waiting;
	pthread_mutex_t noted_lock; /* the last, and never held while anything is waited for */
	json_t *noted;              /* the notes, as weft status shows them */
};

enum {
	TAKE_RETRY_MS = 250, /* after A did not answer */
	TAKE_WHO_MAX = 320,  /* names of those who cannot follow */
};

/* take-view.c */

void take_set_phase(struct take *t, enum take_phase phase);
/* Whether somebody's word can help, and the word that somebody brought (resolve.c). */
void take_set_waits(struct take *t, bool waits);
enum take_word take_word_of(struct take *t);
void take_forget_word(struct take *t);
/* The next two under the moves' lock, or on its thread. */
bool take_is_over(const struct take *t);
json_t *take_json(const struct take *take);
/*
 * The notes as they are now are what weft status shows.  Under the notes' lock, by whoever has
 * changed them, and knows what the disk said.
 */
void moves_show_notes(struct weft_moves *moves);

/* take-ask.c; on the take's thread.  Errors as struct tp_driver's question(), or A's refusals. */

/* False: it is aborted, or the donor stops. */
bool take_nap(const struct take *t, int ms);
/* Waits.  False: this donor stops.  An abort comes too late here, and ends one wait at most. */
bool take_rest(struct take *t, int ms);
/* Whether the error is of the way to A, and not A's answer. */
bool take_is_of_link(int r);
json_t *take_question(const struct take *t, const char *op);
/* Takes over the question.  take_ask: until the take is called off; to_the_end: whatever comes. */
int take_ask(struct take *t, json_t *question, json_t **ret, struct weft_error *err);
int take_ask_to_the_end(struct take *t, json_t *question, json_t **ret, struct weft_error *err);
int take_ask_with(struct take *t, json_t *question, int cancel_fd, json_t **ret,
	struct weft_error *err);
/* All changes since the last time, by "or" into t->changed; op: give-changes, give-freeze. */
int take_ask_changes(struct take *t, const char *op, uint64_t pace, struct weft_error *err);
/* What goes with the contents, from A's answer. */
int take_apply(struct take *t, const json_t *told, struct weft_error *err);
/*
 * Size, epoch, and whether it is a file, which gets its path; who cannot follow: how many, and
 * names in TAKE_WHO_MAX.
 */
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

/* take-fill.c; on the take's thread */

/*
 * The region is served: fetches what is absent, what somebody waits for first.  0; -ESHUTDOWN: this
 * donor stops; -ESTALE: A has lost what is absent.
 */
int take_fill(struct take *t, struct weft_error *err);

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
/* Ends a wait of the take's thread.  Under the moves' lock, as the next one. */
int take_wake(struct take *take);
struct take *take_find(const struct weft_moves *moves, uint64_t number);
int take_abort(struct take *take, struct weft_error *err);
void take_free(struct take *take);

/* give.c: A's answer to a question whose name begins with "give-". */
int give_answer(struct weft_moves *moves, const struct weft_peer *peer, const char *op,
	const json_t *question, json_t **ret, struct weft_error *err);
/* A takes back what it gave by that move, which B will never serve by. */
int give_take_back(struct weft_moves *moves, struct weft_region *region, const char *name,
	uint64_t number, struct weft_error *err);

/* The same since B is said to be gone for good: under a new epoch. */
int give_begin_anew(struct weft_moves *moves, struct weft_region *region, const char *name,
	uint64_t number, struct weft_error *err);

/* resolve.c: the answer to a question whose name begins with "resolve". */
int resolve_answer(struct weft_moves *moves, const struct weft_peer *peer, const char *op,
	const json_t *question, json_t **ret, struct weft_error *err);

#endif
