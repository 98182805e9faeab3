/* SPDX-License-Identifier: MIT */
/*
 * What the parts of weft serve --pool share: serve-pool.c (the report, and its two threads),
 * serve-pool-orders.c (what the reporter does for the coordinator).
 */
#ifndef WEFT_FABRIC_MAIN_SERVE_POOL_H
#define WEFT_FABRIC_MAIN_SERVE_POOL_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fabric/main/serve.h"
#include "fabric/pool/client.h"
#include "fabric/pool/lend.h"
#include "fabric/pool/pool.h"

enum {
	REGION_LEN = sizeof(POOL_REGION_HEAD) - 1 + 16,
	HAS_MAX = SERVE_MAX_REGIONS,
	JOBS_MAX = SERVE_MAX_REGIONS,
	MOVES_MAX = 4,
	ANSWER_MS = 10000,
	USER_MAX = 128,
	SOON_MS = 100,    /* between two reports, while something is done */
	HURRY_MS = 10000, /* that memory is missed, and reports come soon */
	LOOK_MS = 200,    /* between two looks at the machine's memory, while some of it is lent */
};

/* A region that this donor has for the pool. */
struct has {
	char name[REGION_LEN + 1], user[USER_MAX]; /* user "": nobody has it attached */
	uint64_t size_bytes, epoch;
	struct weft_region *region; /* a reference */
};

/* A region that the maker is to make. */
struct job {
	char name[REGION_LEN + 1];
	uint64_t size_bytes;
	bool under_way;
};

/* weft move, of one region. */
struct leaving {
	char name[REGION_LEN + 1];
	pid_t pid;
};

struct serve_pool {
	struct serve *serve;
	const struct serve_pool_wish *wish;
	char name[POOL_NAME_MAX + 1];
	char uri[320];
	int64_t since;
	struct pool_client *client;
	pthread_t reporter, maker;
	unsigned nr_threads;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* there is a job, or the end */
	bool ends;
	struct job jobs[JOBS_MAX];
	unsigned nr_jobs;
	json_t *refused; /* what could not be made, since the last answer */
	struct pool_lending lending;
	uint64_t used_bytes;
	char trouble[300]; /* why the last report was not answered; "": it was */
	bool joined;

	/* The reporter's. */
	int64_t nr_reports;
	struct has has[HAS_MAX];
	unsigned nr_has;
	struct leaving leaving[MOVES_MAX];
	bool is_busy;             /* something is done, or was just now */
	json_t *stays;            /* what could not be moved, since the last answer */
	uint64_t missed_since_ns; /* that memory is to be given back; 0: it is not */
};

bool serve_pool_has_name(const char *name); /* a region of a pool's */
struct has *serve_pool_find(struct serve_pool *p, const char *name);

/* Under the lock. */
struct job *serve_pool_find_job(struct serve_pool *p, const char *name);
void serve_pool_remove_job(struct serve_pool *p, struct job *job);
void serve_pool_append(json_t *list, const char *name, const char *why);
/* What may be lent in sum. */
uint64_t serve_pool_most(const struct serve_pool *p);

/* The reporter's. */
void serve_pool_carry_out(struct serve_pool *p, const json_t *answer);
void serve_pool_see_moves(struct serve_pool *p);
/* The machine has missed memory for too long. */
void serve_pool_give_up(struct serve_pool *p);

#endif
