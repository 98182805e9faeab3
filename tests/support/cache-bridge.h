/* SPDX-License-Identifier: MIT */
/*
 * A managed bridge over the mem transport, one for each test: what a region held before, what a
 * test writes there, and what it read.
 */
#ifndef WEFT_TESTS_SUPPORT_CACHE_BRIDGE_H
#define WEFT_TESTS_SUPPORT_CACHE_BRIDGE_H

#include "tests/support/bridge-io.h"
#include "transports/mem/mem.h"

enum { REGION = 4 << 20, CHUNK = 64 << 10, WAIT_MS = 20000, NEVER_MS = 3600000 };

extern struct mem_config mem;
extern struct bridge_config config; /* which a test may change before start() */
extern uint8_t *region;
extern uint8_t old[4 * CHUNK], new[4 * CHUNK], got[4 * CHUNK];

/* cmocka's, around each test. */
int cache_set_up(void **state);
int cache_tear_down(void **state);

void start(void);
int read_got(unsigned lane, uint64_t off, uint64_t len);
void start_io(struct io *io, unsigned lane, uint8_t kind, uint64_t off, uint64_t len,
	const void *from, void *to);
/* The operation after those that there were is with the transport. */
void wait_for_ops(uint64_t nr);

#endif
