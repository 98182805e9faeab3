/* SPDX-License-Identifier: MIT */
/*
 * Private to weft move: the command line (move.c), moves (move-run.c), which donor has a region
 * (move-resolve.c); the regions of a donor (move-all.c); donors that are asked (move-ask.c), what
 * the one that takes a region says of the move (move-status.c), how it is told (move-report.c), and
 * signals (move-signal.c).  One thread.
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

struct move_keys {
	const char *file;    /* NULL: where keys are usually */
	bool allow_insecure; /* none is used */
};

/* The command line. */
struct move_options {
	struct move_keys keys;
	uint64_t bandwidth;
	unsigned downtime_ms;
	bool json, dry_run, disconnect, resolve, taker_is_gone, giver_is_gone, post_copy, all,
		wait;
};

/* ---- signals ---- */

/* From now on the first SIGINT or SIGTERM is noted, and the second ends the program. */
int move_catch_signals(struct weft_error *err);
void move_release_signals(void);
bool move_is_interrupted(void);
/* Waits; the first signal ends that. */
void move_rest(int ms);
/* For questions whose wait the first signal ends; afterwards the second ends the program. */
int move_until_interrupted(void);

/* ---- asking ---- */

struct tp_talk;
struct weft_held_key;
struct move_donor {
	const struct weft_uri *uri; /* of a region there, or of the donor; the caller's */
	const struct move_keys *keys;
	char *name; /* for people: "weft://host:port" */
	/* Private. */
	bool has_key; /* … if there is one */
	bool is_lost; /* it did not answer for as long as anybody waits for that */
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
/* Whether an error was the donor's own word. */
bool move_donor_said_so(const struct move_donor *donor);

/* What a donor has of a region. */
struct move_standing {
	/* owner, prepared, given, gone, refused, nothing; or another word */
	char is[MOVE_PHASE_MAX];
	char to[WEFT_PLACE_MAX];     /* given, gone: to whom; "": it does not say */
	char from[WEFT_PLACE_MAX];   /* prepared, filling: from whom; "": it does not say */
	char move[MOVE_ID_LEN + 1];  /* by which move; "": by none */
	char epoch[MOVE_ID_LEN + 1]; /* of the contents; "": it does not say */
	bool bytes;                  /* they are there */
	bool moves;                  /* a move is under way that needs nobody's help */
};
/* move: by that one, or NULL.  As move_donor_ask(). */
int move_standing_ask(struct move_donor *donor, const char *region, const char *move,
	int timeout_ms, int cancel_fd, struct move_standing *ret, struct weft_error *err);
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
	unsigned waiting;            /* borrowers that held the region, and have not come yet */
	int64_t eta_ms, downtime_ms; /* -1: not known */
	char who[320];               /* their names, "": none; printable */
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
	bool before;           /* it had ended before this program began */
	uint64_t begin_ns;
	/* Private. */
	char phase[MOVE_PHASE_MAX]; /* the last that was told as JSON */
};

/* A new phase, as JSON on standard output. */
void move_report_phase(struct move_report *report, const struct move_status *status);
/* The end, on standard output.  A text is printed of a region that has moved alone. */
void move_report_end(const struct move_report *report, const struct move_status *status,
	enum move_result result);
void move_report_trial(const struct move_report *report, const struct move_trial *trial);
/* A JSON object on standard output, a line; takes it. */
void move_report_json(json_t *json);

/* How far all moves are: drawn on standard error, or told from time to time, once it takes long. */
struct move_table {
	bool terminal; /* standard error is one */
	uint64_t begin_ns;
	/* Private. */
	uint64_t said_ns;
	unsigned nr_lines; /* that are drawn */
};
struct move_row {
	const char *from;
	const struct move_status *status;
};
/* The rows of those that are under way; of several, how many of all have ended as well. */
void move_table_draw(struct move_table *table, const struct move_row *rows, unsigned nr,
	unsigned nr_moved, unsigned nr_all);
/* Takes what was drawn away, before other lines. */
void move_table_clear(struct move_table *table);

/* ---- the work: 0; 1: it did not succeed, and why was told; or -errno ---- */

/* uris: of the regions, and after them of the donor that takes them. */
int move_run(const struct move_options *options, const struct weft_uri *uris, unsigned nr_regions,
	struct weft_error *err);
int move_resolve(const struct move_options *options, const struct weft_uri *from,
	const struct weft_uri *to, struct weft_error *err);

/*
 * The regions of the donor at the URI, as an array of that many URIs and one more, which is zeros,
 * to be freed with each of its URIs.
 */
int move_list_all(const struct move_options *options, const struct weft_uri *donor,
	struct weft_uri **ret, unsigned *ret_nr, struct weft_error *err);

#endif
