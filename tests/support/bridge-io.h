/* SPDX-License-Identifier: MIT */
/* Requests to a bridge from a test's thread, and waiting for their ends. */
#ifndef WEFT_TESTS_SUPPORT_BRIDGE_IO_H
#define WEFT_TESTS_SUPPORT_BRIDGE_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "nbd-bridge/bridge/bridge.h"

struct mem_config;

/* What the functions below work on. */
extern struct bridge *bridge;

/* One request; what `from` holds is written, what was read goes to `to`. */
struct io {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	const void *from;
	void *to;
	_Atomic bool finished;
	int error;
	struct bridge_lane *lane;
};

void io_start(struct io *io, unsigned lane);
/* Its error; fails the test when there is no end to it. */
int io_wait(struct io *io);
int do_write(unsigned lane, uint64_t off, const void *data, uint64_t len, uint8_t flags);
int do_read(unsigned lane, uint64_t off, void *data, uint64_t len);
int do_flush(unsigned lane);
/* TRIM, ZERO, CACHE. */
int do_range(unsigned lane, uint8_t kind, uint64_t off, uint64_t len, uint8_t flags);

/* A string of the bridge's status. */
const char *status_text(const char *key, char *buf, size_t len);
void wait_for_text(const char *key, const char *want);
void wait_for_state(const char *want);

/* Until the mem transport was asked for nr more connections, granted or refused. */
void wait_for_connects(const struct mem_config *mem, unsigned nr);

#endif
