/* SPDX-License-Identifier: MIT */
/*
 * Bridges over the mem transport: what they are configured with, requests from a test's thread, and
 * waiting for their ends.
 */
#ifndef WEFT_TESTS_SUPPORT_BRIDGE_IO_H
#define WEFT_TESTS_SUPPORT_BRIDGE_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "nbd-bridge/bridge/bridge.h"

struct cache_file;
struct mem_config;
struct weft_donor;
struct weft_region;

/* What the functions below work on. */
extern struct bridge *bridge;

/* A region of the transport itself, behind no donor, whose epoch is 42. */
void mem_config_init(struct mem_config *mem, void *base, uint64_t size_bytes);
/* A donor that lends memory as "r"; both are the caller's.  lease_ms: 0 for the usual one. */
struct weft_donor *lend_memory(uint64_t size_bytes, uint32_t lease_ms, struct weft_region **ret);
/* Two lanes that write, for nobody who was there before.  mem: of its one donor; or NULL. */
struct bridge_config bridge_config_for_tests(struct mem_config *mem);
/* Of a cache in a file, which goes on with what the file holds that the donor lacks. */
struct bridge_cache_config cache_config_in_file(struct cache_file *file, uint64_t bytes,
	uint64_t chunk_bytes, uint32_t push_interval_ms);
/* Makes the bridge and starts it, or fails the test. */
void bridge_begin(const struct bridge_config *config);
/* Bytes of which no two runs are alike. */
void fill_pattern(uint8_t *bytes, size_t len);

/* One request; what `from` holds is written, what was read goes to `to`. */
struct io {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	const void *from;
	void *to;
	bool copied; /* READ into its buffer, not lent by a cache */
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

/* A number of the cache's part of the bridge's status: a key, or one of an object in it. */
uint64_t cache_number(const char *key);
uint64_t cache_number_of(const char *part, const char *key);
/* A string of the bridge's status. */
const char *status_text(const char *key, char *buf, size_t len);
void wait_for_text(const char *key, const char *want);
void wait_for_state(const char *want);

/* Until the mem transport was asked for nr more connections, granted or refused. */
void wait_for_connects(const struct mem_config *mem, unsigned nr);

#endif
