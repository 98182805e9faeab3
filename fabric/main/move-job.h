/* SPDX-License-Identifier: MIT */
/* The move of one region, as weft move sees it: it is asked for, looked at, told.  One thread. */
#ifndef WEFT_FABRIC_MAIN_MOVE_JOB_H
#define WEFT_FABRIC_MAIN_MOVE_JOB_H

#include "fabric/main/move.h"

enum {
	MOVE_ANSWER_MS = 10000, /* for a question that a donor answers at once */
	MOVE_FIND_MS = 3000,    /* for a donor's word on what it has */
	MOVE_PAUSE_MS = 200,    /* between two looks */
};

struct move_job {
	const struct move_options *options;
	struct move_donor *taker; /* of all jobs */
	struct move_table *table; /* of all jobs */
	struct move_donor giver;
	/* The region's, now and then; what they point to is the caller's. */
	struct weft_uri from, to;
	char *from_text, *to_text;
	char id[MOVE_ID_LEN + 1]; /* "": it has not begun */
	bool abort_sent;
	enum move_result result;   /* MOVE_GOES_ON: it is under way, or has not begun */
	struct move_status status; /* the last that is known */
	bool phase_is_new;         /* by the last look */
	struct move_report report;
};

/* 0, or -ENOMEM; move_job_fini() in any case. */
int move_job_init(struct move_job *job, const struct move_options *options,
	struct move_donor *taker, struct move_table *table, const struct weft_uri *from,
	const struct weft_uri *to, struct weft_error *err);
void move_job_fini(struct move_job *job);

/* A dry run.  0; 1: it cannot be done; or -errno. */
int move_job_try(struct move_job *job, struct weft_error *err);
/*
 * Has the region taken: 0, and it is under way, or had moved before, which was told; or -errno.
 * group: the moves of this number share the bandwidth; "": it is this move's alone.
 */
int move_job_begin(struct move_job *job, const char *group, struct weft_error *err);
/* Asks how far it is.  Once that is known the result is set, and was told. */
void move_job_look(struct move_job *job);
/* How many borrowers have not come to the taker yet, and who, in the status.  0, or -errno. */
int move_job_ask_who_waits(struct move_job *job, struct weft_error *err);

#endif
