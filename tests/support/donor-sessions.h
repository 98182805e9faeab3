/* SPDX-License-Identifier: MIT */
/*
 * A donor with one region, of memory or of a file, and sessions that ask for it.  On the test's
 * thread, but for copiers.
 */
#ifndef WEFT_TESTS_SUPPORT_DONOR_SESSIONS_H
#define WEFT_TESTS_SUPPORT_DONOR_SESSIONS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/donor/donor.h"

enum { LEASE_MS = 300, FENCE_MS = 2000 };

extern struct weft_donor *donor;
extern struct weft_region *region;
extern char file_path[64], copy_path[80];
/* Of the last grant. */
extern struct weft_error err;

/* A session whose thread "copies" until it is fenced, or a passive one. */
struct session {
	struct weft_grant *grant;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool fenced, hold;
	unsigned nr_fenced;
	_Atomic bool released;
};

void on_fence(void *ctx);
struct weft_hello hello_of(uint8_t who, uint64_t generation, enum weft_mode mode);
/* On a session that is new. */
int grant_to(struct session *s, const struct weft_peer *peer, const struct weft_hello *hello);
int grant_hello(struct session *s, const struct weft_hello *hello);
int grant(struct session *s, uint8_t who, uint64_t generation, enum weft_mode mode);
/* As one that remembers the region's contents. */
int claim(struct session *s, uint8_t who, uint64_t generation, enum weft_mode mode);
int grant_stock_at(struct session *s, uint64_t tenure);
int grant_stock(struct session *s);
void start_copier(struct session *s);
void release(struct session *s, bool clean);
void tick_in(uint64_t ms);
struct weft_region *new_region(const char *name, bool read_only);
void new_donor(void);
int setup(void **state);
int teardown(void **state);
int setup_file(void **state);
int teardown_file(void **state);
void open_again(void);
void stop_donor(void);
void kill_donor(void);

#endif
