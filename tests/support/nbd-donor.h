/* SPDX-License-Identifier: MIT */
/*
 * A donor with an NBD listener on loopback TCP and a Unix socket, and a thread for its loop, for
 * tests.
 */
#ifndef WEFT_TESTS_NBD_DONOR_H
#define WEFT_TESTS_NBD_DONOR_H

#include <pthread.h>

#include "tests/support/nbd-raw.h"
#include "transports/nbd/donor/listener.h"

struct nbd_donor {
	struct weft_donor *donor;
	struct weft_loop *loop;
	struct nbd_listener *listener;
	struct weft_region *region; /* memory, "m" */
	pthread_t thread;
	_Atomic int command; /* for the loop's thread */
	_Atomic int drained;
	uint32_t drain_ms;
	char dir[64], socket[96];
	uint16_t port;
};

/* Asserts that everything works.  config may be NULL. */
void nbd_donor_start(struct nbd_donor *d, uint64_t size_bytes,
	const struct nbd_listener_config *config, uint32_t fence_timeout_ms);
/* The same with this donor_config. */
void nbd_donor_start_as(struct nbd_donor *d, uint64_t size_bytes,
	const struct nbd_listener_config *config, const struct weft_donor_config *donor_config);
/* nbd_listener_stop() and _drain() on the loop's thread; returns what drain said. */
int nbd_donor_drain(struct nbd_donor *d, uint32_t timeout_ms);
/* Stops, drains and frees it all. */
void nbd_donor_end(struct nbd_donor *d);

/* What this process has in memory, and so the donor. */
uint64_t rss_bytes(void);

/* A connection to it; no server in this thread. tcp: over loopback. */
void nbd_donor_connect(struct nbd_donor *d, struct nbd_raw *raw, bool tcp);
/* Greeting, session, GO: the final reply's type.  text (may be NULL, 256 bytes): the error's. */
uint32_t nbd_donor_go(struct nbd_raw *raw, const char *name, unsigned id, uint64_t generation,
	char *text);

#endif
