/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the torture share: the run (t), its clients, and the processes under them.
 * One thread.
 */
#ifndef WEFT_TESTS_TORTURE_TORTURE_H
#define WEFT_TESTS_TORTURE_TORTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/torture/channel.h"
#include "tests/torture/history.h"

enum {
	REGIONS = 3,
	REGION_BYTES = 8 << 20,
	STRIDE = REGION_BYTES / HISTORY_BLOCKS,
	DEPTH = 8, /* and a slot for a flush */
	LEASE_S = 2,
	PATIENCE_S = 60, /* for anything that has to come to pass */
};

enum cache { DIRECT, WRITE_THROUGH, WRITE_BACK, CACHE_FILE, NR_CACHES };

struct op {
	enum channel_kind kind;
	bool busy, sent;
	unsigned block;
	uint64_t mark, at, at_least, start_ns;
	struct snapshot snapshot;
	uint8_t *buf;
};

struct client {
	unsigned region;
	char name[32], path[256], cache_file[256], device[64];
	enum cache cache;
	pid_t bridge; /* 0: none */
	unsigned nr_logs;
	char log[280];
	struct channel *channel;
	struct view view;
	struct op ops[DEPTH + 1];
	bool failed;  /* an operation was answered with an error */
	bool stopped; /* the bridge is, by a signal */
};

struct torture {
	const char *dir, *host, *device_kind, *without[4];
	unsigned nr_without;
	uint64_t seed, random;
	unsigned round;
	char what[128]; /* this round */
	int port;
	pid_t donor;
	unsigned nr_donors;
	char donor_log[280];
	bool traffic, rdma;
	struct history history[REGIONS];
	struct client client[REGIONS], other[REGIONS];
	bool copied[REGIONS];
	struct snapshot copy[REGIONS];
	uint64_t nr_writes, nr_reads, nr_flushes, nr_told, nr_others, nr_granted_again;
};
extern struct torture t;
extern const char *const cache_names[NR_CACHES];
extern const char *const region_names[REGIONS];

/* ---- process.c ---- */

void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Somebody was told what cannot be (1), or nothing can be said (2). */
void end(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
/* Ends it if r says so. */
void check(int r, const char *why);
/* Of the seed's. */
uint64_t random_below(uint64_t n);
/* When PATIENCE_S is over. */
uint64_t patience_ends_ns(void);

/* Ends with us. */
pid_t spawn(const char *log, char *const argv[]);
/* Reaps it if it has ended. */
bool has_ended(pid_t *pid);
void kill_and_reap(pid_t *pid);
/* As much as there is room for, with a NUL. */
size_t read_text(const char *path, char *buf, size_t size);
/* Runs it to its end, while clients go on.  Its exit status; what it said goes to text. */
int run(char *text, size_t size, char *const argv[]);
/* Of this run's WEFT_RUN_DIR. */
void holder_kill(void);

/* ---- client.c: what a client has under way ---- */

void client_init(struct client *c, const char *name, unsigned region);
/* Into the slot, which is free: DEPTH flushes, the others read or write. */
void op_begin(struct client *c, unsigned slot);
void op_send(struct client *c, struct op *op);
void op_answered(struct client *c, struct op *op);
bool has_ops(const struct client *c);
/* Forgets all that it had under way, and leaves. */
void drop_ops(struct client *c);
/* Everybody's operations go on for so long. */
void pump(uint64_t ms);

/* ---- attachment.c: its bridge ---- */

/* 0 once it is there, and the client with it; -ESTALE when it was told so. */
int bridge_attach(struct client *c);
/* What its bridge said last; good until the next call. */
const char *said(const struct client *c);
/* Whatever its bridge left is cleared away. */
void bridge_clear(struct client *c);
/* Remembers nothing from now on. */
void begin_view(struct client *c);
void begin_anew(struct client *c);
/* Until it works again, or was told that it cannot, and has begun anew. */
void recover(struct client *c);

#endif
