/* SPDX-License-Identifier: MIT */
/*
 * Private to weft move: donors that are asked (move-ask.c), what the one that takes a region says
 * of the move (move-status.c), and how it is told (move-report.c).  One thread.
 */
#ifndef WEFT_FABRIC_MAIN_MOVE_H
#define WEFT_FABRIC_MAIN_MOVE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"
#include "fabric/uri.h"

enum {
	MOVE_ID_LEN = 16, /* hex digits */
	MOVE_PHASE_MAX = 16,
};

/* ---- asking ---- */

struct move_keys {
	const char *file;    /* NULL: where keys are usually */
	bool allow_insecure; /* none is used */
};

struct tp_talk;
struct weft_held_key;
struct move_donor {
	const struct weft_uri *uri; /* of a region there, or of the donor; the caller's */
	const struct move_keys *keys;
	char *name; /* for people: "weft://host:port" */
	/* Private. */
	bool has_key; /* … if there is one */
	struct weft_held_key *key;
	struct tp_talk *talk; /* as for question() of struct tp_driver */
};

/* Nothing is asked yet.  0, or -ENOMEM.  move_donor_end() in any case. */
int move_donor_begin(const struct weft_uri *uri, const struct move_keys *keys,
	struct move_donor *ret, struct weft_error *err);
void move_donor_end(struct move_donor *donor);
/*
 * Takes the question (NULL: no memory).  As question() of struct tp_driver, or weft_uri_key().
 * What the donor does not say itself has its name in err.
 */
int move_donor_ask(struct move_donor *donor, json_t *question, int timeout_ms, int cancel_fd,
	json_t **ret, struct weft_error *err);

/* What a donor has of a region. */
struct move_standing {
	/* owner, prepared, given, gone, refused, nothing; or a newer word */
	char is[MOVE_PHASE_MAX];
	char to[WEFT_PLACE_MAX]; /* given, gone: to whom; "": it does not say */
};
/* As move_donor_ask(). */
int move_standing_ask(struct move_donor *donor, const char *region, int timeout_ms, int cancel_fd,
	struct move_standing *ret, struct weft_error *err);
bool move_standing_is(const struct move_standing *standing, const char *word);
/* On standard error. */
void move_standing_tell(const struct move_donor *donor, const char *region,
	const struct move_standing *standing);

/* ---- what the donor that takes it says ---- */

/* A donor's answer, checked; what it leaves out is 0 or -1. */
struct move_status {
	/*
	 * track, pull, converge, finalize, follow, done, aborted, failed; "asked": nothing is known
	 * yet; or a newer word
	 */
	char phase[MOVE_PHASE_MAX];
	uint64_t size_bytes;
	uint64_t copied_bytes;  /* in all rounds */
	uint64_t left_bytes;    /* known to differ still */
	uint64_t checked_bytes; /* whose hashes were compared */
	uint64_t rate, dirty_rate; /* bytes a second: copied, and written meanwhile */
	unsigned round, borrowers;
	int64_t eta_ms, downtime_ms; /* -1: not known */
	char error[sizeof(((struct weft_error *)0)->message)]; /* "": none; printable */
};

/* What a dry run finds. */
struct move_trial {
	bool possible;
	uint64_t size_bytes, free_bytes;
	unsigned borrowers;
	char why[sizeof(((struct weft_error *)0)->message)]; /* not possible; printable */
	json_t *cannot_follow; /* texts, printable; the owner's */
};

/* How a move ended. */
enum move_result {
	MOVE_GOES_ON,
	MOVE_MOVED,
	MOVE_ABORTED,
	MOVE_FAILED,
	MOVE_UNKNOWN, /* nobody could be asked */
};

/* Each: 0, or -EPROTO with what is wrong with the answer, and *ret is untouched. */
int move_id_read(const json_t *answer, char ret[MOVE_ID_LEN + 1], struct weft_error *err);
int move_status_read(const json_t *answer, struct move_status *ret, struct weft_error *err);
int move_trial_read(const json_t *answer, struct move_trial *ret, struct weft_error *err);
/* By the phase. */
enum move_result move_result_of(const struct move_status *status);

/* ---- telling ---- */

struct move_report {
	const char *from, *to; /* the region's URIs, before and after */
	const char *id;        /* of the move */
	bool json;             /* on standard output, instead of a text */
	bool terminal;         /* standard error is one */
	bool before;           /* it had ended before this program began */
	uint64_t begin_ns;
	/* Private. */
	uint64_t said_ns;
	bool drawn;
	char phase[MOVE_PHASE_MAX]; /* the last that was told as JSON */
};

/* How far it is: on standard error once it takes long, on standard output (JSON) by phases. */
void move_report_progress(struct move_report *report, const struct move_status *status);
/* Takes what was drawn away, before other lines on standard error. */
void move_report_clear(struct move_report *report);
/* The end, on standard output.  A text is printed of a region that has moved alone. */
void move_report_end(struct move_report *report, const struct move_status *status,
	enum move_result result);
void move_report_trial(const struct move_report *report, const struct move_trial *trial);

#endif
