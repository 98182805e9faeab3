/* SPDX-License-Identifier: MIT */
/*
 * One set of cases for every transport.  A program for each (mem.c, nbd-donor.c, …) describes how
 * to start a peer and runs the cases against it.  What a transport cannot do is skipped, and says
 * so.
 *
 * Everything waits through tp_arm() and poll(2), with a bound: a wake-up that is lost fails the
 * test.
 */
#ifndef WEFT_TESTS_CONFORMANCE_SUITE_H
#define WEFT_TESTS_CONFORMANCE_SUITE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "fabric/donor/donor.h"
#include "fabric/transport.h"

enum {
	CONF_BOUND_MS = 30000,       /* for anything */
	CONF_REGION_BYTES = 8 << 20, /* of the peer's region, zeroed */
	CONF_BUF_BYTES = 40 << 20,   /* of registered memory */
	CONF_LEASE_MS = 60000,       /* tests turn the clock themselves */
};

struct conf;

struct conf_fixture {
	const char *name;
	/*
	 * Starts a fresh peer, whose region is all zeros, and fills ops, config, target (of a
	 * region "r") and size_bytes.
	 */
	void (*start)(struct conf *conf);
	void (*stop)(struct conf *conf);
	bool epoch;    /* it knows epochs */
	/* it is conf->donor, with a lease of CONF_LEASE_MS: attachments, generations */
	bool sessions;
	bool no_stock; /* it is for weft alone: clients without an attachment cannot even ask */
};

struct conf {
	const struct conf_fixture *fixture;
	/* From the fixture. */
	const struct tp_ops *ops;
	const void *config;
	struct tp_target target; /* of a writer */
	uint64_t size_bytes;
	struct weft_donor *donor;
	struct weft_region *region;
	void *peer;
	/* From the suite. */
	struct tp *tp;
	uint8_t *buf; /* CONF_BUF_BYTES, registered as mem */
	struct tp_mem *mem;
	int nr_fds;
};

/* One operation, and how often it completed. */
struct conf_op {
	struct tp_op op;
	int nr_done;
};

/* "FIXTURE WHAT": it is not made for that, so that the test says nothing about it. */
#define conf_skip(...) \
	do { \
		printf("\nSKIP: does not apply: " __VA_ARGS__); \
		printf("\n"); \
		fflush(stdout); \
		skip(); \
	} while (0)

int conf_setup(void **state);
int conf_teardown(void **state);

/* Waits until it is ready or failed. */
struct tp_conn *conf_try(struct conf *conf, const struct tp_target *target);
/* Ready, or the test fails. */
struct tp_conn *conf_connect(struct conf *conf, const struct tp_target *target);
/* Refused: the code (negative).  *why (may be NULL) gets the message. */
int conf_refused(struct conf *conf, const struct tp_target *target, struct weft_error *why);
/* Shuts down, drains, disconnects.  Takes NULL. */
void conf_end(struct tp_conn *conn);

/*
 * Moves all connections on, waiting once if nothing happened.  Counts completions; returns their
 * number.
 */
int conf_pump(struct tp_conn *const *conns, unsigned n);
/* Until cond() is true, pumping. */
void conf_pump_until(struct tp_conn *const *conns, unsigned n, bool (*cond)(void *ctx), void *ctx);
/* Until nothing is outstanding on it. */
void conf_drain(struct tp_conn *conn);
/* Posts one; pumps while the queue is full. */
void conf_post(struct tp_conn *conn, struct conf_op *op);
/* Posts one alone: what tp_post() said. */
int conf_post_one(struct tp_conn *conn, struct conf_op *op);
/* One operation from start to end: its status, or what tp_post() said. */
int conf_do(struct conf *conf, struct tp_conn *conn, enum tp_op_kind kind, unsigned flags,
	uint64_t off, uint64_t len, void *buf);
/* Sets op up. */
void conf_op(struct conf *conf, struct conf_op *op, enum tp_op_kind kind, uint64_t off,
	uint64_t len, void *buf);

uint64_t conf_random(uint64_t *seed);
/* Bytes that tell where and when they were written. */
void conf_fill(uint8_t *buf, uint64_t off, size_t len, uint64_t stamp);
void conf_check(const uint8_t *buf, uint64_t off, size_t len, uint64_t stamp);

#define conf_case(fn) cmocka_unit_test_setup_teardown(fn, conf_setup, conf_teardown)

/* Runs all common cases, and the program's own. */
int conf_run(const struct conf_fixture *fixture, const struct CMUnitTest *own, size_t nr_own);
/* The program's own alone. */
int conf_run_own(const struct conf_fixture *fixture, const struct CMUnitTest *own, size_t nr_own);

/* Where the cases come from. */
struct conf_cases {
	const struct CMUnitTest *tests;
	size_t nr;
};
struct conf_cases conf_data_cases(void);
struct conf_cases conf_misuse_cases(void);
struct conf_cases conf_life_cases(void);
struct conf_cases conf_session_cases(const struct conf_fixture *fixture);

#endif
