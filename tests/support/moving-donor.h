/* SPDX-License-Identifier: MIT */
/*
 * Stands for a donor whose region moves, or arrives: it grants and refuses as the test says, over
 * loopback TCP.  It keeps the rule that a grant ends all sessions of lower generations, and none
 * of who may come.
 */
#ifndef WEFT_TESTS_MOVING_DONOR_H
#define WEFT_TESTS_MOVING_DONOR_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/nbd/server.h"

enum { MOVING_DONOR_ASKED = 64 };

struct moving_donor {
	uint16_t port;
	char uri[64];
	uint8_t *mem; /* the region's bytes; another donor may have the same */
	uint64_t size_bytes;
	_Atomic uint64_t epoch;

	/* What it does; the test's, any time. */
	_Atomic int refuse;       /* the errno with which it refuses; 0: it grants */
	_Atomic bool hangs_up;    /* nobody is answered */
	_Atomic bool stalls;      /* requests get no answer */
	const char *_Atomic names; /* the place in grants and refusals; NULL: none */

	/* What it saw. */
	_Atomic unsigned nr_asked, nr_granted, nr_requests;
	pthread_mutex_t lock;
	struct weft_hello first; /* under the lock, as the last one */
	struct weft_hello hello;

	/* Its own. */
	int fd;
	pthread_t thread;
	_Atomic bool ends;
	unsigned nr_sessions;
	struct moving_session *sessions;
	pthread_cond_t changed;
};

void moving_donor_start(struct moving_donor *d, uint8_t *mem, uint64_t size_bytes);
/* Ends all sessions. */
void moving_donor_cut(struct moving_donor *d);
/* Cuts, and then refuses with the error. */
void moving_donor_close(struct moving_donor *d, int error);
void moving_donor_end(struct moving_donor *d);
/* The first hello that asked for a grant, or the last one. */
struct weft_hello moving_donor_hello(struct moving_donor *d, bool first);
/* That it has these bytes. */
void moving_donor_check(const struct moving_donor *d, uint64_t off, const void *want, size_t len);
/* Waits until it was asked, or has granted, more than so many times; or fails the test. */
void moving_donor_wait_asked(struct moving_donor *d, unsigned more);
void moving_donor_wait_granted(struct moving_donor *d, unsigned more);

#endif
