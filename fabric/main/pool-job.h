/* SPDX-License-Identifier: MIT */
/*
 * What the parts of weft pool job-start and job-end share: pool-want.c (what a job asks for),
 * pool-job-run.c (what is made of a lease at a node, and its end), pool-job.c (which lease, and
 * when).  One thread.
 */
#ifndef WEFT_FABRIC_MAIN_POOL_JOB_H
#define WEFT_FABRIC_MAIN_POOL_JOB_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"
#include "fabric/main/pool.h"

enum pool_form { POOL_FILE, POOL_DEVICE, POOL_SWAP, POOL_NR_FORMS };
/* NULL: there is no such form. */
const char *pool_form_name(enum pool_form form);
/* False, and *ret is untouched: there is no form of that name. */
bool pool_form_parse(const char *name, enum pool_form *ret);

/* What a job asks for, of each of its nodes. */
struct pool_want {
	bool is_asked; /* for something, if it makes sense or not */
	uint64_t size_bytes;
	json_int_t copies;
	enum pool_form form;
};
/*
 * text: a comment or another text that may have such a wish among its words; NULL: none.  0;
 * -EINVAL: it asks for what there is not, and *ret says only that it asks.
 */
int pool_want_parse(const char *text, unsigned nr_nodes, struct pool_want *ret,
	struct weft_error *err);

/* A job at this node. */
struct pool_here {
	const struct pool_options *o;
	uint64_t end_ns;
	char node[WEFT_NAME_MAX + 1];
	char dir[PATH_MAX / 2];        /* of the job */
	char lease[WEFT_NAME_MAX + 1]; /* "": it has none here */
	enum pool_form form;
	json_t *json; /* the lease */
};
/* Until it has to come to an end: at most so long, and never 0. */
int pool_here_remaining_ms(const struct pool_here *h, int most);
int pool_here_path(const struct pool_here *h, const char *name, char ret[PATH_MAX]);

/* The bridge's process; 0: there is none; or -errno: it does not answer. */
pid_t pool_job_bridge(const struct pool_here *h, json_t **ret_status);
/* Makes of the lease what it is to be, of which `where` says where the job finds it. */
int pool_job_attach(const struct pool_here *h, struct weft_error *err);
int pool_job_where(const struct pool_here *h, char ret[PATH_MAX], struct weft_error *err);
/* Whatever the bridge waits for.  Whether none is left. */
bool pool_job_detach(const struct pool_here *h);
bool pool_job_swap_off(const struct pool_here *h);

#endif
